from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / 'shared' / 'data'

ONEDL = any(metadata.Distribution.discover(name='onedl-mmengine'))  # or OpenMMLab's own: make test-openmmlab

pytest.register_assert_rewrite('segmentors')  # what differs is shown there as in a test


def needs_onedl(reason: str) -> pytest.MarkDecorator:
    """Of a test that OpenMMLab's own packages cannot pass, and why."""
    return pytest.mark.skipif(not ONEDL, reason=f"OpenMMLab's own packages: {reason}")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.trace),))


@pytest.fixture(scope='session', autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What killed processes leave behind goes with pytest's own folders."""
    os.environ['TMPDIR'] = str(tmp_path_factory.mktemp('tmp'))
    tempfile.tempdir = None


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    if 'torch._dynamo' in sys.modules:  # what one test compiled counts towards the next one's limit of recompilations
        torch._dynamo.reset()


@pytest.fixture
def camvid() -> Path:
    path = SHARED / 'camvid'
    if not path.is_dir():
        pytest.skip(f'CamVid is not at {path}; its licence keeps it outside the project')
    return path


def copied(source: Path, target: Path) -> Path:
    """A copy that may be written to, whatever the original allows."""
    for path in source.rglob('*'):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
    return target
