"""SIGTERM and Ctrl-C end a training with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmseg_volo.engine.checkpoints import SafeCheckpointHook

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@HOOKS.register_module()
class StopHook(Hook):
    """The first SIGTERM or SIGINT ends the iteration and writes a checkpoint, from which `--resume` goes on; the exit
    status is the usual one (143, 130). A second one ends the process at once.

    Of several processes the first one saves; the others go on until their launcher ends them.
    """

    priority = 'LOWEST'  # after the checkpoint of this iteration, if one is due

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}
        self._process = os.getpid()

    def before_train(self, runner: Runner) -> None:
        """Python lets only the main thread listen to signals."""
        if threading.current_thread() is threading.main_thread():
            self._process = os.getpid()
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def after_train(self, runner: Runner) -> None:
        self._restore()

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        self._leave(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, *args, **kwargs) -> None:
        self._leave(runner, runner.iter)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data worker: Ctrl-C reaches it too, but its main process decides
            if number == signal.SIGTERM:
                os._exit(128 + number)
        elif self.asked:
            self._restore()
            signal.raise_signal(number)
        else:
            self.asked = signal.Signals(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _leave(self, runner: Runner, iteration: int) -> None:
        if self.asked is None or not is_main_process():
            return
        # gradients that are not yet summed over processes are in no checkpoint
        if get_world_size() > 1 and not runner.optim_wrapper.should_update():
            return
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook) and not hook.by_epoch:
                path = hook.save(runner, iteration)
                runner.logger.warning(f'{self.asked.name}: stopped; --resume goes on from {path}')
        self._restore()
        raise SystemExit(128 + self.asked)
