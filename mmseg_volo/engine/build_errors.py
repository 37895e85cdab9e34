"""Name the config key in errors of what mmengine builds only when a training starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.optim import BaseOptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import BaseLoop, Runner
from torch.optim import Optimizer

from mmseg_volo.errors import UsageError

Schedules = list[_ParamScheduler] | dict[str, list[_ParamScheduler]]  # a dict where there are several optimisers
HINTS = {  # fragment of an error of torch or mmengine -> remedy; {} is the config key
    'persistent_workers option needs': 'set {}.persistent_workers=False, too',
    'prefetch_factor option could only': 'leave out {}.prefetch_factor',
    'base_wd should not be None': 'set {}.optimizer.weight_decay, 0 for none',
}


class NamingRunner(Runner):
    """Runner whose errors in building loops, optimisers and schedules name the config key."""

    def build_train_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        with _named('train_cfg or train_dataloader'):
            return super().build_train_loop(loop)

    def build_val_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        with _named('val_cfg or val_dataloader'):
            return super().build_val_loop(loop)

    def build_test_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        with _named('test_cfg or test_dataloader'):
            return super().build_test_loop(loop)

    def build_optim_wrapper(self, optim_wrapper: Optimizer | BaseOptimWrapper | dict[str, Any]) -> BaseOptimWrapper:
        with _named('optim_wrapper'):
            return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler: Schedules | dict[str, Any] | list[dict[str, Any]]) -> Schedules:
        with _named('param_scheduler'):
            schedules: Schedules = super().build_param_scheduler(scheduler)
            return schedules


@contextmanager
def _named(keys: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        text = ' '.join(str(error).split())
        key = keys.split()[-1]
        hint = next((f': {remedy.format(key)}' for fragment, remedy in HINTS.items() if fragment in text), '')
        raise UsageError(f'{keys} of the config cannot be built: {text}{hint}') from error
