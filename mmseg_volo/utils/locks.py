"""Locks of files that processes of one or several machines agree by, and who holds them.

The system takes a lock back when its process ends, however it ends, so a killed one is in nobody's way. Not filelock:
before its version 4 data workers, which are forked, keep the lock of a process that was killed, and where a file
system has no locks it makes files that stay for ever. On NFS the lock holds between machines if the server has locks
(version 4, or lockd); mounted with `nolock` or `local_lock=flock` it holds on each machine alone.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakSet

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)  # of a file system without them
FAR = 1 << 30  # Windows lets nobody read the byte that is locked: it lies behind what the file says
PAUSE = 0.02  # seconds
MAX_TRIES = 100  # while others remove the file or its folder


class Lock:
    """An exclusive lock of a file, which is made if need be and removed afterwards, as are folders above it.

    On a file system without locks it can always be had. Processes that are forked off do not hold it.

    Args:
        path: of the file.
        keep: leave it and its folders, as one that is taken again and again.
    """

    def __init__(self, path: str | Path, keep: bool = False):
        self.path, self.keep = Path(path), keep
        self._file: int | None = None
        self._since = ''
        self._made: list[Path] = []

    def take(self, wait: bool = False) -> bool:
        """Whether it could be had.

        Args:
            wait: until the process that has it lets it go.

        Raises:
            OSError: the file cannot be made.
        """
        for tried in count(1):
            try:
                self._make_folder()
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except (FileNotFoundError, FileExistsError):  # its folder was removed meanwhile by who had it
                if tried > MAX_TRIES:
                    raise
                continue
            try:
                if not _lock(file, wait):
                    os.close(file)
                    return False
            except BaseException:
                os.close(file)
                raise
            if tried > MAX_TRIES or _is_at(file, self.path):  # some network file systems know no file again
                self._file, self._since = file, datetime.now().isoformat(' ', 'seconds')
                _HELD.add(self)
                return True
            os.close(file)
        return False

    def tell(self, **facts: Any) -> None:
        """Writes into the file who has it: process, machine, time, and what else others are to know."""
        said = dict(pid=os.getpid(), host=socket.gethostname(), since=self._since, **facts)
        content = json.dumps(said).encode()
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, content)
        os.ftruncate(self._file, len(content))

    def release(self) -> None:
        """Lets it go."""
        if self._file is None:
            return
        file, self._file = self._file, None
        _HELD.discard(self)
        for close in (os.name != 'posix', os.name == 'posix'):  # Windows removes no open file
            if close:
                os.close(file)
            elif not self.keep:
                _try(self.path.unlink)
        if self.keep:
            return
        for folder in reversed(self._made):
            _try(folder.rmdir)  # unless there is something in it
        self._made = []

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: Any) -> None:
        self.release()

    def _make_folder(self) -> None:
        absent = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._made += [folder for folder in reversed(absent) if folder not in self._made]


def read_holder(path: Path) -> dict[str, Any]:
    """What the process that has a lock says of itself; empty if it has said nothing yet."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def describe_holder(said: Mapping[str, Any]) -> str:
    """Who has a lock: `process 17 on HOST since 2025-01-31 12:00:00`."""
    if not {'pid', 'host', 'since'} <= said.keys():
        return 'another process'
    return f'process {said["pid"]} on {said["host"]} since {said["since"]}'


def acquire_shared(folder: Path, kind: str, **facts: Any) -> Lock:
    """Any number of processes may be in a folder: takes the first free one of `.KIND-0.lock`, `.KIND-1.lock`, ...

    Args:
        facts: see `Lock.tell`.

    Raises:
        OSError: the folder cannot be written to.
    """
    for number in count():
        lock = Lock(folder / f'.{kind}-{number}.lock')
        if lock.take():
            lock.tell(**facts)
            return lock


def other_holders(folder: Path, kind: str, mine: Lock | None = None) -> Iterator[dict[str, Any]]:
    """What the processes say that hold one of a folder's `acquire_shared`; what killed ones have left is removed."""
    for path in sorted(folder.glob(f'.{kind}-*.lock')):
        if mine is None or path.name != mine.path.name:
            lock = Lock(path)
            if lock.take():
                lock.release()
            else:
                yield read_holder(path)


def create_locked(path: Path) -> int:
    """Makes a file, open and locked by this process alone until it is closed; its folder must exist.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(MAX_TRIES):
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, 'O_BINARY', 0), 0o666)
        try:
            _lock(file, wait=True)
            if _is_at(file, path):  # else `remove_stale` was faster
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def remove_stale(path: Path) -> None:
    """Removes a file of `create_locked` whose process is gone; left alone where the file system has no locks."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return
    try:
        if _lock(file, wait=False, lacking=False):
            _try(path.unlink)
    except OSError:
        pass
    finally:
        os.close(file)
    if os.name != 'posix':  # Windows removes no open file, and none that another process has open
        _try(path.unlink)


def _lock(file: int, wait: bool, lacking: bool = True) -> bool:
    """Whether a file could be locked; `lacking` where the file system has no locks."""
    while True:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            else:
                os.lseek(file, FAR, os.SEEK_SET)
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            return True
        except OSError as error:
            if error.errno in NO_LOCKS:
                return lacking
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise
            if not wait:
                return False
            time.sleep(PAUSE)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


def _try(call: Callable[[], None]) -> None:
    try:
        call()
    except OSError:
        pass


_HELD: WeakSet[Lock] = WeakSet()


def _leave_to_parent() -> None:
    for lock in [*_HELD]:
        if lock._file is not None:
            os.close(lock._file)
            lock._file = None


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_leave_to_parent)
