"""Write files so that each is either complete or absent."""

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
    """Return a free hidden name beside a file, with its suffix; data sets do not list hidden files."""
    end = f'.writing-{uuid4().hex[:8]}{path.suffix}'
    stem = os.fsencode(path.stem)[: LONGEST - len(os.fsencode(end)) - 1]
    return path.with_name(f'.{stem.decode(errors="ignore")}{end}')


class AtomicFile:
    """Write to a hidden file beside `path`, its `scratch_path`, which replaces `path` if `with` ends without an error.

    A killed process leaves the hidden file behind, unlocked: `remove_scratch_files` removes it.

    Raises:
        OSError: the file cannot be created or, when `with` ends, cannot be written to the disk.
    """

    def __init__(self, path: Path):
        self.path, self.scratch = path, scratch_path(path)
        self._lock: int | None = create_locked(self.scratch)

    def keep(self) -> None:
        """Sync the content to the disk, then rename the file to `path`."""
        sync_folder(self.scratch)
        if os.name != 'posix':  # Windows cannot rename an open file
            self._unlock()
        os.replace(self.scratch, self.path)

    def close(self) -> None:
        """Remove the hidden file unless `keep` has renamed it."""
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
    """Remove the hidden files that killed processes have left in a folder; those being written are kept.

    Args:
        pattern: glob of the final names of the files.
    """
    wanted = Path(pattern)
    for path in folder.glob(f'.{wanted.stem}.writing-*{wanted.suffix}'):
        if SCRATCH.fullmatch(path.name):
            remove_stale(path)


def sync_folder(path: Path) -> None:
    """Sync a file to the disk or, where the system can, the names in a folder.

    Raises:
        OSError: the disk reports an error.
    """
    if path.is_dir() and os.name != 'posix':
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def refuse_special(path: str | Path) -> None:
    """Raise a `UsageError` for a pipe or a device, which may never end; a missing file passes."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UsageError(f'{path} is a pipe or a device, expected a file')


def encode_image(suffix: str, pixels: np.ndarray, how: Sequence[int] = ()) -> bytes:
    """Encode pixels as the content of an image file.

    Args:
        suffix: of the file format, e.g. `.png`.
        pixels: (H, W) or, in OpenCV's order, (H, W, 3).
        how: flags and values for `cv2.imencode`.

    Raises:
        UsageError: the format cannot hold these pixels.
    """
    content: np.ndarray | None
    try:
        done, content = cv2.imencode(suffix, pixels, list(how))
    except cv2.error:  # how OpenCV 4 fails; OpenCV 5 returns False or no bytes
        done, content = False, None
    if not done or content is None or not len(content):
        height, width = pixels.shape[:2]
        raise UsageError(f'a {suffix} file cannot hold {width}x{height} pixels of {pixels.dtype}')
    return content.tobytes()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that an interruption or a full disk leaves the old file, or none.

    Raises:
        OSError: it cannot be written.
    """
    with AtomicFile(path) as temporary:
        temporary.write_bytes(content)
