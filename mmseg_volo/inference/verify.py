"""Flush results to disk, and check that they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mmseg_volo.utils.files import sync_folder

ENDS = {'.png': b'IEND\xaeB`\x82', '.jpg': b'\xff\xd9'}  # of complete files: a user may have edited a mask


def confirmed(out: Path, names: Iterable[str]) -> dict[str, int]:
    """Flush the folders of results to disk; the files themselves were flushed before they were renamed.

    Args:
        out: folder of the results.
        names: files below it, or folders of files.

    Returns:
        The bytes of each; for a folder the sum over its files.

    Raises:
        OSError: flushing fails.
    """
    paths = {name: out / name for name in names}
    for folder in {path if path.is_dir() else path.parent for path in paths.values()}:
        sync_folder(folder)
    return {name: size(path) for name, path in paths.items()}


def is_whole(path: Path, written: int | None) -> bool:
    """Return whether a result is as long as it was written, or was replaced by a complete file.

    A power failure may truncate it.

    Args:
        path: file, or folder of files.
        written: bytes that were written; None if an older version did not record them.
    """
    try:
        current = size(path)
    except OSError:
        return False
    if current >= (1 if written is None else written):
        return True
    return path.suffix in ENDS and path.is_file() and path.read_bytes().endswith(ENDS[path.suffix])


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder.

    Raises:
        OSError: it does not exist.
    """
    if not path.is_dir():
        return path.stat().st_size
    with os.scandir(path) as entries:
        return sum(entry.stat().st_size for entry in entries)
