"""Files that are either there completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np

from mmseg_volo.errors import UsageError


def scratch(path: Path) -> Path:
    """A free hidden name beside a file, with its suffix: data sets do not list it, `os.replace` makes it the file."""
    return path.with_name(f'.{path.stem}.{uuid4().hex[:8]}{path.suffix}')


def refuse_special(path: str | Path) -> None:
    """Raises a `UsageError` of a pipe or a device, which may have no end; a file that is not there passes."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UsageError(f'{path} is a pipe or a device, expected a file')


def encode(suffix: str, pixels: np.ndarray, how: Sequence[int] = ()) -> bytes:
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
    temporary = scratch(path)
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
