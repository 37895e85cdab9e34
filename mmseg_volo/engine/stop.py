"""SIGTERM and Ctrl-C end a training with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmseg_volo.engine.checkpoints import SafeCheckpointHook

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_MOMENT = 1.0  # seconds: a launcher passes on what the terminal has sent to all


@HOOKS.register_module()
class StopHook(Hook):
    """The first SIGTERM or SIGINT ends the iteration and writes a checkpoint, from which `--resume` goes on; the exit
    status is the usual one (143, 130). A second one, not at the same moment, ends the process at once.

    Several processes agree on the iteration, whichever of them was asked.
    """

    priority = 'LOWEST'  # after the checkpoint of this iteration, if one is due

    def __init__(self) -> None:
        self._asked = 0
        self._when = 0.0
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
        self._leave(runner, runner.iter, validating=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data worker: Ctrl-C reaches it too, but its main process decides
            if number == signal.SIGTERM:
                os._exit(128 + number)
        elif not self._asked:
            self._asked, self._when = number, time.monotonic()
        elif time.monotonic() - self._when > SAME_MOMENT:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _leave(self, runner: Runner, iteration: int, validating: bool = False) -> None:
        # gradients that are not yet summed over processes are in no checkpoint
        if not self._before or (runner.world_size > 1 and not runner.optim_wrapper.should_update()):
            return
        number = torch.tensor(self._asked)
        all_reduce(number, 'max')
        if not number:
            return
        name = signal.Signals(int(number)).name
        for hook in runner.hooks:
            if isinstance(hook, EMAHook) and validating:  # it has put the averaged weights in place of the trained
                hook.after_val_epoch(runner)
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook) and not hook.by_epoch:
                path = hook.save(runner, iteration)
                if is_main_process():
                    runner.logger.warning(f'{name}: stopped; --resume goes on from {path}')
        self._restore()
        raise SystemExit(128 + int(number))
