"""What the tools are called with, and what they print."""

from __future__ import annotations

from pathlib import Path

import pytest

SHORT = [
    'train_cfg.max_iters=4',
    'train_cfg.val_interval=4',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.checkpoint.max_keep_ckpts=-1',
    'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
]


def train_options(data: Path, work: Path) -> list[str]:
    return ['--work-dir', str(work), '--cfg-options', f'data_root={data}', *SHORT]


def printed(capsys: pytest.CaptureFixture) -> str:
    """What the run just ended printed."""
    return capsys.readouterr().out
