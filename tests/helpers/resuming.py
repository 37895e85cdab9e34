"""A training of seconds to interrupt, and what two checkpoints differ in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmseg_volo.config import CONFIGS
from mmseg_volo_cli import main

# everything that draws or remembers: augmentation, drop path, dropout, BatchNorm, averaged weights, a best score
CONFIG = """
_base_ = ['{configs}/_base_/models/segformer.py', '{configs}/_base_/datasets/demo.py',
          '{configs}/_base_/schedules/muon.py', '{configs}/_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(type='CAFormer', arch=dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32]), drop_path_rate=0.5),
    decode_head=dict(in_channels=[8, 16, 32, 32], channels=16, num_classes=_base_.num_classes, dropout_ratio=0.5),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(128, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers={workers}, persistent_workers={workers} > 0, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_iters={iterations}, val_interval={validation})
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=0.25)]
default_hooks = dict(
    checkpoint=dict(interval=3, max_keep_ckpts=-1, save_best='mIoU'),
    logger=dict(interval=1),
)
randomness = dict(seed={seed})
"""


def write_config(
    folder: Path, seed: int | None = 3, workers: int = 0, iterations: int = 6, validation: int = 3
) -> Path:
    path = folder / 'small.py'
    values = dict(seed=seed, workers=workers, iterations=iterations, validation=validation)
    path.write_text(CONFIG.format(configs=CONFIGS, **values))
    return path


def train(config: Path, data: Path, work: Path, *more: str) -> int:
    return main(
        ['train', str(config), '--no-amp', '--work-dir', str(work), *more, '--cfg-options', f'data_root={data}']
    )


def differing(one: Any, other: Any, where: str = '') -> list[str]:
    """Where two checkpoints differ, in what depends on no clock, path or machine."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {*one, *other} - {'time', 'experiment_name', 'cfg', 'data_time', 'train/time', 'train/data_time'}
        keys -= {key for key in keys if str(key).endswith(('_ckpt', 'val/time', 'val/data_time', 'eta', 'memory'))}
        return [d for k in keys for d in differing(one.get(k), other.get(k), f'{where}.{k}')]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return [d for i, pair in enumerate(zip(one, other, strict=True)) for d in differing(*pair, f'{where}.{i}')]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    return [] if one == other else [where]
