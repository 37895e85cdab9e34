"""Save a checkpoint when SIGTERM, Ctrl-C or a closed terminal ends a training."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmseg_volo.engine.checkpoint import SafeCheckpointHook

HANGUP = [signal.SIGHUP] if hasattr(signal, 'SIGHUP') else []  # not on Windows
SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGHUP') if hasattr(signal, name)]
SAME_MOMENT = 1.0  # seconds: a launcher repeats a signal that the terminal has sent to all processes


@HOOKS.register_module(name=['GracefulStopHook', 'StopHook'])
class GracefulStopHook(Hook):
    """End a training with a checkpoint for `--resume` after the iteration in which SIGTERM, SIGINT or SIGHUP arrives.

    The exit status is the usual one (143, 130, 129). A second signal, not at the same moment, ends the process at once.
    A SIGHUP that is ignored, as by nohup, stays ignored.

    Several processes agree on the iteration, whichever of them got the signal. Data workers that get it too, as from a
    terminal or a batch system, keep working until their main process has the batch that it waits for.
    """

    priority = 'LOWEST'  # after the checkpoint of this iteration, if one is due

    def __init__(self) -> None:
        self._asked = 0
        self._when = 0.0
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._process = os.getpid()
        self._stopping = mmap.mmap(-1, 1)  # shared with data workers

    def before_train(self, runner: Runner) -> None:
        """Handle signals from here on; Python lets only the main thread do so."""
        if threading.current_thread() is threading.main_thread():
            self._process = os.getpid()
            ignored = {number for number in HANGUP if signal.getsignal(number) == signal.SIG_IGN}
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS if number not in ignored}

    def after_train(self, runner: Runner) -> None:
        self._restore()

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        self._stop_if_asked(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        self._stop_if_asked(runner, runner.iter, validating=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data worker
            if number == signal.SIGTERM:
                self._end_worker()
        elif not self._asked:
            self._asked, self._when = number, time.monotonic()
            self._stopping[0] = 1
        elif time.monotonic() - self._when > SAME_MOMENT:
            self._restore()
            signal.raise_signal(number)

    def _end_worker(self) -> None:
        deadline = time.monotonic() + SAME_MOMENT
        while not self._stopping[0]:  # else the main process still waits for its batch
            if time.monotonic() > deadline:
                os._exit(0)  # as torch's handler does; the main process reports a missing batch
            time.sleep(0.01)

    def _restore(self) -> None:
        self._stopping[0] = 0
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _stop_if_asked(self, runner: Runner, iteration: int, validating: bool = False) -> None:
        # checkpoints cannot hold gradients that are not yet summed over processes
        if not self._before or (runner.world_size > 1 and not runner.optim_wrapper.should_update()):
            return
        number = torch.tensor(self._asked)
        all_reduce(number, 'max')
        if not number:
            return
        name = signal.Signals(int(number)).name
        for hook in runner.hooks:
            if isinstance(hook, EMAHook) and validating:  # it has swapped in the averaged weights
                hook.after_val_epoch(runner)
        message = f'{name}: stopped; no checkpoint is written within an epoch, --resume continues from the last one'
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook) and not hook.by_epoch:
                message = f'{name}: stopped; --resume continues from {hook.save(runner, iteration)}'
        if is_main_process():
            runner.logger.warning(message)
        self._restore()
        raise SystemExit(128 + int(number))


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process by an exception, so that unfinished files are cleaned up."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        handled = [n for n in SIGNALS if n != signal.SIGINT and signal.getsignal(n) == signal.SIG_DFL]
        before = {number: signal.signal(number, end) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_answering(initialize: Callable[[int], None] | None, worker: int) -> None:
    """Run a data loader's `worker_init_fn`, then give SIGTERM, by which torch ends workers, to the `GracefulStopHook`.

    Args:
        initialize: the loader's own `worker_init_fn`.
        worker: index of the worker.
    """
    if initialize is not None:
        initialize(worker)
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(getattr(handler, '__self__', None), GracefulStopHook):
        signal.signal(signal.SIGTERM, handler)
