"""The folder of a page: uploads and masks up to a size, while it runs; what a killed one left goes at a start."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.locks import Lock

PREFIX = 'mmseg_volo_demo_'
LOCK = '.lock'
YOUNG = 60.0  # seconds in which a page that starts has locked its folder


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder of this process among the system's temporary ones, removed afterwards.

    Raises:
        UsageError: none can be made.
    """
    try:
        sweep(Path(tempfile.gettempdir()))
        made = tempfile.TemporaryDirectory(prefix=PREFIX)
    except OSError as error:
        raise UsageError(f'no folder for uploads can be made ({error}): make room, or set TMPDIR to another') from None
    with made as name:
        folder = Path(name).resolve()
        with Lock(folder / LOCK) as lock:
            lock.take()
            yield folder


def sweep(place: Path) -> None:
    """Removes folders of pages of this user that run no more."""
    for folder in place.glob(f'{PREFIX}*'):
        with suppress(OSError):  # it is being removed by its page
            found = folder.lstat()
            mine = not hasattr(os, 'getuid') or found.st_uid == os.getuid()
            if not (mine and stat.S_ISDIR(found.st_mode) and time.time() - found.st_mtime > YOUNG):
                continue
            with Lock(folder / LOCK) as lock:
                if lock.take():
                    shutil.rmtree(folder, ignore_errors=True)


def make_room(folder: Path, most: int) -> None:
    """Removes the oldest files below a folder until the others hold at most that many bytes."""
    files = []
    for path in folder.rglob('*'):
        with suppress(OSError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and path.name != LOCK:
                files.append((found.st_mtime, found.st_size, path))
    held = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if held <= most:
            return
        with suppress(OSError):
            path.unlink()
            path.parent.rmdir()  # of its own, unless there is more in it
        held -= size
