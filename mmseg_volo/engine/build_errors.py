"""What mmengine builds of a config only when a training begins: an error there is a sentence that names the part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.runner import Runner

from mmseg_volo.errors import UsageError

HINTS = {  # of what torch and mmengine say -> what to do about it, in {} of the part of the config
    'persistent_workers option needs': 'set {}.persistent_workers=False, too',
    'prefetch_factor option could only': 'leave {}.prefetch_factor out',
    'base_wd should not be None': 'set {}.optimizer.weight_decay, 0 for none',
}


class NamingRunner(Runner):
    """mmengine's runner, whose errors in building loops, optimisers and schedules name the part of the config."""

    def build_train_loop(self, loop: Any) -> Any:
        with _named('train_cfg or train_dataloader'):
            return super().build_train_loop(loop)

    def build_val_loop(self, loop: Any) -> Any:
        with _named('val_cfg or val_dataloader'):
            return super().build_val_loop(loop)

    def build_test_loop(self, loop: Any) -> Any:
        with _named('test_cfg or test_dataloader'):
            return super().build_test_loop(loop)

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        with _named('optim_wrapper'):
            return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        with _named('param_scheduler'):
            return super().build_param_scheduler(scheduler)


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        text = ' '.join(str(error).split())
        hint = next((f': {way.format(what.split()[-1])}' for said, way in HINTS.items() if said in text), '')
        raise UsageError(f'{what} of the config cannot be built: {text}{hint}') from error
