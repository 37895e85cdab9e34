"""Manage the folder of a page's uploads and masks: limit its size, and remove those of killed pages."""

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
YOUNG = 60.0  # seconds after which a starting page has surely locked its folder


@contextmanager
def own_folder() -> Iterator[Path]:
    """Create a temporary folder for this process, and remove it afterwards.

    Raises:
        UsageError: it cannot be created.
    """
    try:
        sweep(Path(tempfile.gettempdir()))
        temporary = tempfile.TemporaryDirectory(prefix=PREFIX)
    except OSError as error:
        message = f'cannot create a folder for uploads ({error}): free some space, or set TMPDIR to another folder'
        raise UsageError(message) from None
    with temporary as name:
        folder = Path(name).resolve()
        with Lock(folder / LOCK) as lock:
            lock.take()
            yield folder


def sweep(parent: Path) -> None:
    """Remove the folders of this user's pages that no longer run."""
    for folder in parent.glob(f'{PREFIX}*'):
        with suppress(OSError):  # its page is removing it
            status = folder.lstat()
            mine = not hasattr(os, 'getuid') or status.st_uid == os.getuid()
            if not (mine and stat.S_ISDIR(status.st_mode) and time.time() - status.st_mtime > YOUNG):
                continue
            with Lock(folder / LOCK) as lock:
                if lock.take():
                    shutil.rmtree(folder, ignore_errors=True)


def make_room(folder: Path, most: int) -> None:
    """Remove the oldest files below a folder until the others take at most `most` bytes."""
    files = []
    for path in folder.rglob('*'):
        with suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and path.name != LOCK:
                files.append((status.st_mtime, status.st_size, path))
    held = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if held <= most:
            return
        with suppress(OSError):
            path.unlink()
            path.parent.rmdir()  # its own folder, if it is empty now
        held -= size
