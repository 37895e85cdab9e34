"""Lock a work dir: one training at a time, any number of tests beside it, and no process while it is emptied.

A test writes only files of its own session, so that a checkpoint can be tested while the training runs. Two trainings
never share checkpoints.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast, is_main_process
from mmengine.logging import MessageHub

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.locks import Lock, acquire_shared, describe_holder, other_holders, read_holder

TRAINING = '.train.lock'
TEST = 'test'
DATA_REPORT = 'data.json'  # in the work dir: results of the data check
RESULTS_PAGE = 'report.html'
LOCK_WAIT = 2.0  # seconds that a killed process may need to release a lock
STAMP = '%Y%m%d_%H%M%S'  # mmengine's
SESSION = re.compile(r'\d{8}_\d{6}')
CHECKPOINTS = ('iter_*.pth', 'epoch_*.pth', 'best_*.pth')
LEFT = (
    *CHECKPOINTS,
    '.*.pth',
    'last_checkpoint',
    DATA_REPORT,
    RESULTS_PAGE,
)  # written by a training, beside its sessions

_mine: ContextVar[frozenset[Path]] = ContextVar('mine', default=frozenset())  # work dirs that callers have locked


@contextmanager
def in_use_by_training(work_dir: str | Path) -> Iterator[None]:
    """Lock a work dir against other trainings; may be nested. Of several processes only the first one locks.

    Raises:
        UsageError: another process trains there, or the folder cannot be written to.
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
    """Lock a work dir against being emptied.

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
    """Empty a work dir, and lock it against other trainings.

    Args:
        work_dir: of an earlier run, if there is one.
        ours: name of a file that identifies the work dir of such a run.

    Raises:
        UsageError: another process works in it, or it holds something else.
    """
    folder = Path(work_dir)
    with in_use_by_training(folder):
        if holder := next(other_holders(folder, TEST), None):
            raise _in_use(work_dir, 'test', holder)
        paths = [path for path in folder.iterdir() if not path.name.endswith('.lock')]
        # of a run that stopped before it wrote `ours`
        only_sessions = all(path.name == DATA_REPORT or SESSION.fullmatch(path.name) for path in paths)
        if not only_sessions and not (folder / ours).exists():
            raise UsageError(f'{folder} would be emptied, but holds no {ours}: name another folder, or empty it')
        for path in sorted(paths, key=lambda path: path.name == ours):  # `ours` last, so that a stop can be repeated
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield


def folders_of(cfg: Config) -> list[Path]:
    """Return the folders of a training's checkpoints: its work dir, and one in the checkpoint hook's `out_dir`."""
    work_dir = Path(cfg.work_dir)
    elsewhere = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('out_dir')
    return [work_dir, *([Path(elsewhere) / work_dir.absolute().name] if elsewhere else [])]


def refuse_to_replace(work_dir: str | Path) -> None:
    """Refuse to start a training in a work dir of an earlier one, whose files it would replace.

    Raises:
        UsageError: the work dir holds a checkpoint.
    """
    if trained := sorted(path.name for kind in CHECKPOINTS for path in Path(work_dir).glob(kind)):
        raise UsageError(
            f'{work_dir} holds another training ({trained[-1]}), which would be replaced: --resume continues it, '
            f'--overwrite removes it and starts anew, --work-dir names another folder'
        )


def remove_training(work_dir: str | Path, but: Sequence[str]) -> None:
    """Remove the files of a training and its tests from a work dir, which `in_use_by_training` has locked.

    Args:
        work_dir: of the training; other files in it stay.
        but: names of further files that stay.

    Raises:
        UsageError: a test is running there.
    """
    folder = Path(work_dir)
    if holder := next(other_holders(folder, TEST), None):
        raise _in_use(work_dir, 'test', holder)
    sessions = [path for path in folder.iterdir() if SESSION.fullmatch(path.name)]
    for path in {*sessions, *(path for kind in LEFT for path in folder.glob(kind))}:
        if path.name not in but:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def own_session(work_dir: str | Path, timestamp: str, experiment: str = '') -> str:
    """Create a new session's folder and return its name: a time, or the next second without a session.

    All processes of a job must call it.

    Args:
        work_dir: of the job.
        timestamp: the current time, as mmengine writes it.
        experiment: name under which, with the time, mmengine registers the objects of a session.
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


def _in_use(work_dir: str | Path, what: str, holder: Mapping[str, Any]) -> UsageError:
    return UsageError(
        f'{work_dir} is in use by a {what}, {describe_holder(holder)}: wait until it ends, stop it, '
        f'or name another --work-dir'
    )


def _cannot_be_written(work_dir: str | Path, error: OSError) -> UsageError:
    return UsageError(f'{work_dir} cannot be written to ({error.strerror}): name another --work-dir')
