"""Files to be read, and one that must not be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.trace),))


def copied(source: Path, target: Path) -> Path:
    """A copy that may be written to, whatever the original allows."""
    for path in source.rglob('*'):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
    return target
