"""Fixtures of several tests of predictions; each module has its own checkpoint and model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.predicting import write_photos
from helpers.tiny_training import predictor

import mmseg_volo


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predictor(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='module')
def model(checkpoint: Path) -> torch.nn.Module:
    return mmseg_volo.load(checkpoint, device='cpu')


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / 'photos')
