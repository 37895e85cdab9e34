"""Fixtures of the tests of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.app_checkpoints import write_checkpoint, write_image


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp('weights') / 'demo.pth')


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp('image') / 'scene <b>1.png')
