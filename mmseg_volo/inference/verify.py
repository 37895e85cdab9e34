"""Whether results are on the disk, and there as they were written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mmseg_volo.utils.files import sync_folder

ENDS = {'.png': b'IEND\xaeB`\x82', '.jpg': b'\xff\xd9'}  # of whole files: somebody may have corrected a mask


def confirmed(out: Path, names: Iterable[str]) -> dict[str, int]:
    """Has the disk confirm the names of results; their content was, before they got these.

    Args:
        out: folder of the results.
        names: of files below it, and of folders of files.

    Returns:
        The size of each in bytes; of a folder that of its files together.

    Raises:
        OSError: the disk does not.
    """
    paths = {name: out / name for name in names}
    for folder in {path if path.is_dir() else path.parent for path in paths.values()}:
        sync_folder(folder)
    return {name: size(path) for name, path in paths.items()}


def is_whole(path: Path, written: int | None) -> bool:
    """Whether a result is as it was written, or was replaced by a whole file: a power failure may leave less of it.

    Args:
        path: of the file, or folder of files.
        written: its size; None where an older version has not noted it.
    """
    try:
        found = size(path)
    except OSError:
        return False
    if found >= (1 if written is None else written):
        return True
    return path.suffix in ENDS and path.is_file() and path.read_bytes().endswith(ENDS[path.suffix])


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder.

    Raises:
        OSError: it is not there.
    """
    if not path.is_dir():
        return path.stat().st_size
    with os.scandir(path) as entries:
        return sum(entry.stat().st_size for entry in entries)
