"""How far a training, a validation and a test are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader

from mmseg_volo.utils.progress import ProgressBar

PAUSE = 30.0  # seconds without a line of mmengine's, after which there is one of ours


@HOOKS.register_module()
class ProgressHook(Hook):
    """A bar on a terminal; elsewhere a line when mmengine, which counts iterations, has been silent for long."""

    def __init__(self) -> None:
        self._bars: list[ProgressBar] = []

    def before_train(self, runner: Runner) -> None:
        self._begin(
            runner, ProgressBar(None, 'training', runner.max_iters, 'iteration', initial=runner.iter, **_look())
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        self._bars[-1].update()

    def after_train(self, runner: Runner) -> None:
        self._end(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self._begin(runner, _of_images(runner.val_dataloader, 'validating'))

    def before_test_epoch(self, runner: Runner) -> None:
        self._begin(runner, _of_images(runner.test_dataloader, 'testing'))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[SegDataSample] | None = None
    ) -> None:
        self._count(runner, outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[SegDataSample] | None = None
    ) -> None:
        self._count(runner, outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._end(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._end(runner)

    def _begin(self, runner: Runner, bar: ProgressBar) -> None:
        self.make_room()
        if not self._bars:
            for handler in _consoles(runner):
                handler.addFilter(self.make_room)
        self._bars.append(bar)

    def _count(self, runner: Runner, outputs: Sequence[SegDataSample] | None) -> None:
        bar = self._bars[-1]
        bar.update(min(len(outputs or ()) * runner.world_size, bar.total - bar.n))

    def _end(self, runner: Runner) -> None:
        self._bars.pop().close()
        if self._bars:
            self._bars[-1].unpause()  # the time of a validation is not the training's
        else:
            for handler in _consoles(runner):
                handler.removeFilter(self.make_room)

    def make_room(self, record: logging.LogRecord | None = None) -> bool:
        """Before a line of the log; as a filter it lets all pass."""
        for bar in self._bars[-1:]:
            bar.make_room()
        return True


def _look() -> dict[str, Any]:
    return dict(pause=PAUSE, leave=False, disable=not is_main_process())


def _of_images(loader: DataLoader, what: str) -> ProgressBar:
    return ProgressBar(None, what, len(loader.dataset), 'image', **_look())


def _consoles(runner: Runner) -> list[logging.Handler]:
    return [handler for handler in runner.logger.handlers if type(handler) is logging.StreamHandler]
