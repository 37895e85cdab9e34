"""Folders of the project, and of the data beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / 'tests'
SHARED = ROOT.parent / 'shared' / 'data'
