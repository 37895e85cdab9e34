"""SIGTERM, Ctrl-C and a terminal that is closed end a training with a checkpoint."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmseg_volo.engine.checkpoint import SafeCheckpointHook

HANGUP = [signal.SIGHUP] if hasattr(signal, 'SIGHUP') else []  # not on Windows
SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGHUP') if hasattr(signal, name)]
SAME_MOMENT = 1.0  # seconds: a launcher passes on what the terminal has sent to all


@HOOKS.register_module(name=['GracefulStopHook', 'StopHook'])
class GracefulStopHook(Hook):
    """The first SIGTERM, SIGINT or SIGHUP ends the iteration and writes a checkpoint, from which `--resume` goes on;
    the exit status is the usual one (143, 130, 129). A second one, not at the same moment, ends the process at once.
    A SIGHUP that is ignored, as by nohup, stays so.

    Several processes agree on the iteration, whichever of them was asked. Data workers that are asked too, as by a
    terminal or a batch system, go on until their main process has what it waits for.
    """

    priority = 'LOWEST'  # after the checkpoint of this iteration, if one is due

    def __init__(self) -> None:
        self._asked = 0
        self._when = 0.0
        self._before: dict[signal.Signals, object] = {}
        self._process = os.getpid()
        self._stopping = mmap.mmap(-1, 1)  # shared with data workers

    def before_train(self, runner: Runner) -> None:
        """Python lets only the main thread listen to signals."""
        if threading.current_thread() is threading.main_thread():
            self._process = os.getpid()
            ignored = {number for number in HANGUP if signal.getsignal(number) == signal.SIG_IGN}
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS if number not in ignored}

    def after_train(self, runner: Runner) -> None:
        self._restore()

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        self._leave(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, *args, **kwargs) -> None:
        self._leave(runner, runner.iter, validating=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data worker
            if number == signal.SIGTERM:
                self._leave_worker()
        elif not self._asked:
            self._asked, self._when = number, time.monotonic()
            self._stopping[0] = 1
        elif time.monotonic() - self._when > SAME_MOMENT:
            self._restore()
            signal.raise_signal(number)

    def _leave_worker(self) -> None:
        deadline = time.monotonic() + SAME_MOMENT
        while not self._stopping[0]:  # else the main process still waits for its batch
            if time.monotonic() > deadline:
                os._exit(0)  # as torch's handler does when its main process ends it; that says what it misses
            time.sleep(0.01)

    def _restore(self) -> None:
        self._stopping[0] = 0
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
        said = f'{name}: stopped; no checkpoint is written within an epoch, --resume goes on from the last one'
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook) and not hook.by_epoch:
                said = f'{name}: stopped; --resume goes on from {hook.save(runner, iteration)}'
        if is_main_process():
            runner.logger.warning(said)
        self._restore()
        raise SystemExit(128 + int(number))


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end the process as an exception would: what is half done is cleared away."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        heeded = [n for n in SIGNALS if n != signal.SIGINT and signal.getsignal(n) == signal.SIG_DFL]
        before = {number: signal.signal(number, end) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_answering(initialize: Callable[[int], None] | None, worker: int) -> None:
    """`worker_init_fn` of a data loader: its own, then gives SIGTERM, which torch lets end workers, to the
    `GracefulStopHook`.

    Args:
        initialize: the loader's own.
        worker: its number.
    """
    if initialize is not None:
        initialize(worker)
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(getattr(handler, '__self__', None), GracefulStopHook):
        signal.signal(signal.SIGTERM, handler)
