"""Folders of the project, and of the data beside it."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / 'tests'
SHARED = ROOT.parent / 'shared' / 'data'


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that imports `helpers`."""
    return {**os.environ, 'PYTHONPATH': os.pathsep.join([str(TESTS), os.environ.get('PYTHONPATH', '')]), **more}
