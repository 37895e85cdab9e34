"""Show the progress of a training, a validation or a test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader

from mmseg_volo.utils.progress import ProgressBar

PAUSE = 30.0  # seconds without a line of mmengine's log until a line of progress


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show a bar on a terminal; elsewhere a line whenever mmengine's log has been silent for long."""

    def __init__(self) -> None:
        self._bars: list[ProgressBar] = []

    def before_train(self, runner: Runner) -> None:
        bar = ProgressBar(None, 'training', runner.max_iters, 'iteration', initial=runner.iter, **_options())
        self._begin(runner, bar)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Mapping[str, object] | None = None
    ) -> None:
        self._bars[-1].update()

    def after_train(self, runner: Runner) -> None:
        self._end(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self._begin(runner, _image_bar(runner.val_dataloader, 'validating'))

    def before_test_epoch(self, runner: Runner) -> None:
        self._begin(runner, _image_bar(runner.test_dataloader, 'testing'))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Sequence[SegDataSample] | None = None
    ) -> None:
        self._count(runner, outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Sequence[SegDataSample] | None = None
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
            self._bars[-1].unpause()  # leave the time of the validation out of the training's rate
        else:
            for handler in _consoles(runner):
                handler.removeFilter(self.make_room)

    def make_room(self, record: logging.LogRecord | None = None) -> bool:
        """Clear the bar before a line of the log; as a logging filter, let all lines pass."""
        for bar in self._bars[-1:]:
            bar.make_room()
        return True


def _options() -> dict[str, Any]:
    return dict(pause=PAUSE, leave=False, disable=not is_main_process())


def _image_bar(loader: DataLoader[Any], action: str) -> ProgressBar:
    count = len(cast(Sized, loader.dataset))  # torch types data sets without a length
    return ProgressBar(None, action, count, 'image', **_options())


def _consoles(runner: Runner) -> list[logging.Handler]:
    return [handler for handler in runner.logger.handlers if type(handler) is logging.StreamHandler]
