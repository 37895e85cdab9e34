"""Lock files between processes of one or several machines, and report who holds a lock.

The system releases a lock when its process ends, however it ends, so a killed process blocks nobody. Why not filelock:
before version 4, forked data workers keep the lock of a killed process, and on a file system without locks it leaves
files behind for good. On NFS a lock holds between machines if the server supports locks (version 4, or lockd); mounted
with `nolock` or `local_lock=flock` it holds within each machine only.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakSet

if sys.platform == 'win32':
    import msvcrt
else:
    import fcntl

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)  # of a file system without them
FAR = 1 << 30  # offset of the locked byte, beyond the content: on Windows nobody can read a locked byte
PAUSE = 0.02  # seconds
MAX_TRIES = 100  # while other processes remove the file or its folder


class Lock:
    """Exclusive lock of a file; the file and the folders above it are created on demand and removed afterwards.

    On a file system without locks, taking it always succeeds. Forked processes do not hold it.

    Args:
        path: of the file.
        keep: leave the file and its folders, for a lock that is taken again and again.
    """

    def __init__(self, path: str | Path, keep: bool = False):
        self.path, self.keep = Path(path), keep
        self._file: int | None = None
        self._since = ''
        self._made: list[Path] = []

    def take(self, wait: bool = False) -> bool:
        """Take the lock, and return whether that succeeded.

        Args:
            wait: until the process that holds it releases it.

        Raises:
            OSError: the file cannot be created.
        """
        for tried in count(1):
            try:
                self._make_folder()
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except (FileNotFoundError, FileExistsError):  # its former holder has just removed the folder
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
            if tried > MAX_TRIES or _is_at(file, self.path):  # some network file systems never report the same file
                self._file, self._since = file, datetime.now().isoformat(' ', 'seconds')
                _HELD.add(self)
                return True
            os.close(file)
        return False

    def tell(self, **facts: Any) -> None:
        """Write the holder into the file: process, machine, time and `facts`."""
        holder = dict(pid=os.getpid(), host=socket.gethostname(), since=self._since, **facts)
        content = json.dumps(holder).encode()
        assert self._file is not None, 'take the lock first'
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, content)
        os.ftruncate(self._file, len(content))

    def release(self) -> None:
        """Release the lock, and remove what `take` created."""
        if self._file is None:
            return
        file, self._file = self._file, None
        _HELD.discard(self)
        for close in (os.name != 'posix', os.name == 'posix'):  # Windows cannot remove an open file
            if close:
                os.close(file)
            elif not self.keep:
                _try(self.path.unlink)
        if self.keep:
            return
        for folder in reversed(self._made):
            _try(folder.rmdir)  # fails if the folder is not empty
        self._made = []

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _make_folder(self) -> None:
        absent = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._made += [folder for folder in reversed(absent) if folder not in self._made]


def read_holder(path: Path) -> dict[str, Any]:
    """Read what the holder of a lock has written by `Lock.tell`; empty if it has written nothing yet."""
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def describe_holder(holder: Mapping[str, Any]) -> str:
    """Name the holder of a lock: `process 17 on HOST since 2025-01-31 12:00:00`."""
    if not {'pid', 'host', 'since'} <= holder.keys():
        return 'another process'
    return f'process {holder["pid"]} on {holder["host"]} since {holder["since"]}'


def acquire_shared(folder: Path, kind: str, **facts: Any) -> Lock:
    """Take the first free lock of `.KIND-0.lock`, `.KIND-1.lock`, ...: any number of processes may share a folder.

    Args:
        facts: see `Lock.tell`.

    Raises:
        OSError: the folder cannot be written to.
    """
    locks = (Lock(folder / f'.{kind}-{number}.lock') for number in count())
    lock = next(lock for lock in locks if lock.take())
    lock.tell(**facts)
    return lock


def other_holders(folder: Path, kind: str, mine: Lock | None = None) -> Iterator[dict[str, Any]]:
    """Yield the holder of each `acquire_shared` lock of a folder but `mine`; remove the locks of killed processes."""
    for path in sorted(folder.glob(f'.{kind}-*.lock')):
        if mine is None or path.name != mine.path.name:
            lock = Lock(path)
            if lock.take():
                lock.release()
            else:
                yield read_holder(path)


def create_locked(path: Path) -> int:
    """Create a file, and return it opened and locked until it is closed; its folder must exist.

    Raises:
        OSError: it cannot be created.
    """
    for _ in range(MAX_TRIES):
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, 'O_BINARY', 0), 0o666)
        try:
            _lock(file, wait=True)
            if _is_at(file, path):  # else `remove_stale` of another process was faster
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def remove_stale(path: Path) -> None:
    """Remove a file of `create_locked` whose process has ended; on a file system without locks it is kept."""
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
    if os.name != 'posix':  # Windows cannot remove an open file, whichever process has opened it
        _try(path.unlink)


def _lock(file: int, wait: bool, lacking: bool = True) -> bool:
    """Lock a file, and return whether that succeeded; `lacking` on a file system without locks."""
    while True:
        try:
            if sys.platform == 'win32':
                os.lseek(file, FAR, os.SEEK_SET)
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
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


def _close_inherited() -> None:
    for lock in [*_HELD]:
        if lock._file is not None:
            os.close(lock._file)
            lock._file = None


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_close_inherited)
