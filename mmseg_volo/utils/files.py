"""Files that are either there completely or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import cv2
import numpy as np

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.locks import create_locked, remove_stale

SCRATCH = re.compile(r'\..*\.writing-[0-9a-f]{8}(?:\.[^.]+)?')
LONGEST = 255  # bytes of a name, of most file systems


def scratch_path(path: Path) -> Path:
    """A free hidden name beside a file, with its suffix: data sets do not list it, `os.replace` makes it the file."""
    end = f'.writing-{uuid4().hex[:8]}{path.suffix}'
    stem = os.fsencode(path.stem)[: LONGEST - len(os.fsencode(end)) - 1]
    return path.with_name(f'.{stem.decode(errors="ignore")}{end}')


class AtomicFile:
    """A hidden file beside `path`, its `scratch_path`, to be written; it becomes `path` when `with` ends without an
    error.

    A killed process leaves it behind, no longer locked: `remove_scratch_files` removes it.

    Raises:
        OSError: it cannot be made; or, when `with` ends, cannot be written to the disk.
    """

    def __init__(self, path: Path):
        self.path, self.scratch = path, scratch_path(path)
        self._lock: int | None = create_locked(self.scratch)

    def keep(self) -> None:
        """Has the disk confirm what was written, and gives it its name."""
        sync_folder(self.scratch)
        if os.name != 'posix':  # Windows renames no open file
            self._unlock()
        os.replace(self.scratch, self.path)

    def close(self) -> None:
        """Removes what was not kept."""
        if os.name == 'posix':
            self.scratch.unlink(missing_ok=True)
            self._unlock()
        else:
            self._unlock()
            self.scratch.unlink(missing_ok=True)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Path:
        return self.scratch

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.keep()
        finally:
            self.close()


def remove_scratch_files(folder: Path, pattern: str = '*') -> None:
    """Removes what killed processes have left of a `AtomicFile` in a folder; what others write now is left alone.

    Args:
        pattern: of the names that the files would have got.
    """
    wanted = Path(pattern)
    for path in folder.glob(f'.{wanted.stem}.writing-*{wanted.suffix}'):
        if SCRATCH.fullmatch(path.name):
            remove_stale(path)


def sync_folder(path: Path) -> None:
    """Has the disk confirm a file, or, where the system can, the names in a folder.

    Raises:
        OSError: it does not.
    """
    if path.is_dir() and os.name != 'posix':
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def refuse_special(path: str | Path) -> None:
    """Raises a `UsageError` of a pipe or a device, which may have no end; a file that is not there passes."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UsageError(f'{path} is a pipe or a device, expected a file')


def encode_image(suffix: str, pixels: np.ndarray, how: Sequence[int] = ()) -> bytes:
    """What a file with these pixels holds.

    Args:
        suffix: says its kind, as `.png`.
        pixels: (H, W) or, in OpenCV's order, (H, W, 3).
        how: flags and values for `cv2.imencode`, which says in three ways that it failed: OpenCV 5 returns False or no
            bytes, OpenCV 4 raises.

    Raises:
        UsageError: such a file cannot hold them.
    """
    try:
        done, content = cv2.imencode(suffix, pixels, list(how))
    except cv2.error:
        done, content = False, ()
    if not done or not len(content):
        height, width = pixels.shape[:2]
        raise UsageError(f'a {suffix} file cannot hold {width}x{height} pixels of {pixels.dtype}')
    return content.tobytes()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that an interruption or a full disk leaves the old one, or none.

    Raises:
        OSError: it cannot be written.
    """
    with AtomicFile(path) as temporary:
        temporary.write_bytes(content)
