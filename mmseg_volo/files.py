"""Files that are either there completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def scratch(path: Path) -> Path:
    """A free hidden name beside a file, with its suffix: data sets do not list it, `os.replace` makes it the file."""
    return path.with_name(f'.{path.stem}.{uuid4().hex[:8]}{path.suffix}')


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
