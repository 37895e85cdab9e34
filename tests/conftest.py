from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.paths import SHARED

pytest.register_assert_rewrite('helpers.segmentors')  # what differs is shown there as in a test


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
