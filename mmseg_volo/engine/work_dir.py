"""Who may work in a work dir at a time: one training, any number of tests beside it, and nobody while it is emptied.

A test writes files of its own session only, so that a checkpoint can be tested while the training goes on. A training
shares checkpoints with no other.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import broadcast, is_main_process
from mmengine.logging import MessageHub

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.locks import Lock, acquire_shared, describe_holder, other_holders, read_holder

TRAINING = '.train.lock'
TEST = 'test'
DATA_REPORT = 'data.json'  # in the work dir: what the check of the data has found
RESULTS_PAGE = 'report.html'
LOCK_WAIT = 2.0  # seconds that a killed process may take to be gone
STAMP = '%Y%m%d_%H%M%S'  # mmengine's
SESSION = re.compile(r'\d{8}_\d{6}')
CHECKPOINTS = ('iter_*.pth', 'epoch_*.pth', 'best_*.pth')
LEFT = (*CHECKPOINTS, '.*.pth', 'last_checkpoint', DATA_REPORT, RESULTS_PAGE)  # by a training, beside its sessions

_mine: ContextVar[frozenset[Path]] = ContextVar('mine', default=frozenset())  # what the calls above have locked


@contextmanager
def in_use_by_training(work_dir: str | Path) -> Iterator[None]:
    """Inside, no other process trains in a work dir; may be nested. Of several processes only the first one asks.

    Raises:
        UsageError: one does, or the folder cannot be written to.
    """
    folder = Path(work_dir).resolve()
    if folder in _mine.get():
        yield
        return
    with _locked(work_dir) as lock:
        lock.tell(what='train')
        token = _mine.set(_mine.get() | {folder})
        try:
            yield
        finally:
            _mine.reset(token)


@contextmanager
def in_use_by_test(work_dir: str | Path) -> Iterator[None]:
    """Inside, no other process empties a work dir.

    Raises:
        UsageError: the folder cannot be written to.
    """
    try:
        lock = acquire_shared(Path(work_dir), TEST, what='test')
    except OSError as error:
        raise _cannot_be_written(work_dir, error) from error
    with lock:
        yield


@contextmanager
def emptied_work_dir(work_dir: str | Path, ours: str) -> Iterator[None]:
    """Removes all in a work dir; inside, no other process trains in it.

    Args:
        work_dir: of an earlier run, if there is one.
        ours: name of a file in the work dir of such a run.

    Raises:
        UsageError: a process works in it, or it holds something else.
    """
    folder = Path(work_dir)
    with in_use_by_training(folder):
        if said := next(other_holders(folder, TEST), None):
            raise _in_use(work_dir, 'test', said)
        found = [path for path in folder.iterdir() if not path.name.endswith('.lock')]
        begun = all(
            path.name == DATA_REPORT or SESSION.fullmatch(path.name) for path in found
        )  # and stopped before `ours`
        if not begun and not (folder / ours).exists():
            raise UsageError(f'{folder} is to be replaced, and holds no {ours}: name another folder, or empty it')
        for path in sorted(found, key=lambda path: path.name == ours):  # so that it can be gone on with
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield


def folders_of(cfg: Config) -> list[Path]:
    """Where a training writes checkpoints: its work dir, and what `default_hooks.checkpoint.out_dir` makes of it."""
    work_dir = Path(cfg.work_dir)
    elsewhere = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('out_dir')
    return [work_dir, *([Path(elsewhere) / work_dir.absolute().name] if elsewhere else [])]


def refuse_to_replace(work_dir: str | Path) -> None:
    """A training that does not go on with what is in its work dir would replace it.

    Raises:
        UsageError: there is a checkpoint of an earlier one.
    """
    if trained := sorted(path.name for kind in CHECKPOINTS for path in Path(work_dir).glob(kind)):
        raise UsageError(
            f'{work_dir} holds another training ({trained[-1]}), which would be replaced: --resume goes on with it, '
            f'--overwrite removes it and begins anew, --work-dir names another place'
        )


def remove_training(work_dir: str | Path, but: Sequence[str]) -> None:
    """Removes what a training and its tests have left in a work dir, which `in_use_by_training` has locked.

    Args:
        work_dir: of the training; what else lies in it stays.
        but: names of what stays, too.

    Raises:
        UsageError: a test is running there.
    """
    folder = Path(work_dir)
    if said := next(other_holders(folder, TEST), None):
        raise _in_use(work_dir, 'test', said)
    sessions = [path for path in folder.iterdir() if SESSION.fullmatch(path.name)]
    for path in {*sessions, *(path for kind in LEFT for path in folder.glob(kind))}:
        if path.name not in but:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def own_session(work_dir: str | Path, timestamp: str, experiment: str = '') -> str:
    """The name of a new session's folder, which is made: a time, or the next second in which no other one has begun.

    Called in all processes of a job.

    Args:
        work_dir: of the job.
        timestamp: now, as mmengine writes it.
        experiment: name by which, with the time, mmengine keeps what belongs to a session of this process.
    """
    when = torch.tensor(time.mktime(time.strptime(timestamp, STAMP)), dtype=torch.float64)
    name = lambda: time.strftime(STAMP, time.localtime(when.item()))  # noqa: E731
    while is_main_process():
        try:
            if not MessageHub.check_instance_created(f'{experiment}_{name()}'):
                Path(work_dir, name()).mkdir(parents=True)
                break
        except FileExistsError:
            pass
        when += 1
    broadcast(when)
    return name()


@contextmanager
def _locked(work_dir: str | Path) -> Iterator[Lock]:
    lock = Lock(Path(work_dir) / TRAINING)
    try:
        deadline = time.monotonic() + LOCK_WAIT
        while not (free := lock.take()) and time.monotonic() < deadline:
            time.sleep(0.05)
    except OSError as error:
        raise _cannot_be_written(work_dir, error) from error
    if not free:
        raise _in_use(work_dir, 'training', read_holder(lock.path))
    with lock:
        yield lock


def _in_use(work_dir: str | Path, what: str, said: dict) -> UsageError:
    return UsageError(
        f'{work_dir} is in use by a {what}, {describe_holder(said)}: wait until it ends or stop it, '
        f'or name another --work-dir'
    )


def _cannot_be_written(work_dir: str | Path, error: OSError) -> UsageError:
    return UsageError(f'{work_dir} cannot be written to ({error.strerror}): name another --work-dir')
