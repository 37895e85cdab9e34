"""Trainings of seconds on folders of pictures, in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.tiny_training import write_config
from mmseg_volo_cli import main

QUICK = 'train_cfg = dict(max_iters=2, val_interval=2)\ndefault_hooks = dict(checkpoint=dict(interval=2))\n'


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))


def train(data: Path, *options: str, model: str | Path | None = None) -> int:
    """The status of a training of two iterations, which writes one checkpoint, and the best one."""
    model = model or write_config(Path.cwd(), QUICK)
    return main(['train', '--data', str(data), '--model', str(model), '--work-dir', 'work', '--no-amp', *options])
