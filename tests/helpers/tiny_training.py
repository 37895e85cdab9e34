"""A training of seconds, for tests of what surrounds a training."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config

import mmseg_volo
from mmseg_volo.config import CONFIGS, load_config
from mmseg_volo.io.checkpoint import RECORD
from mmseg_volo_cli import main

CONFIG = """
_base_ = ['{configs}/_base_/models/segformer.py', '{configs}/_base_/datasets/demo.py',
          '{configs}/_base_/schedules/muon.py', '{configs}/_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(type='CAFormer', arch=dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32])),
    decode_head=dict(in_channels=[8, 16, 32, 32], channels=16, num_classes=_base_.num_classes),
)
train_pipeline = [
    dict(type='LoadRandomCrop', scale=(128, 64), ratio_range=(1.0, 1.5), crop_size=(64, 64)),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1), logger=dict(interval=1))
randomness = dict(seed=3)
"""


def write_config(folder: Path, more: str = '') -> Path:
    """The config above and some lines more, as a file."""
    path = folder / 'small.py'
    path.write_text(CONFIG.format(configs=CONFIGS) + more)
    return path


def train(config: Path | str, data: Path, work: Path, *more: str) -> int:
    """The status of `mmseg-volo train`; options of the config come last in `more`."""
    flags = [given for given in more if given.startswith('--')]
    options = [f'data_root={data}', *(given for given in more if not given.startswith('--'))]
    return main(['train', str(config), '--no-amp', '--work-dir', str(work), *flags, '--cfg-options', *options])


def predictor(folder: Path, seed: int = 0, more: str = '') -> Path:
    """A checkpoint of the model above with random weights that tell ten classes apart, which knows its config."""
    torch.manual_seed(seed)
    cfg = load_config(write_config(folder, more))
    model = mmseg_volo.load(cfg, device='cpu')
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)  # else all classes are nearly equal
    record = Config(dict(model=cfg.model, test_pipeline=cfg.test_pipeline)).to_dict()
    shown = {name: model.dataset_meta[name] for name in ('classes', 'palette')}
    path = folder / f'predictor_{seed}.pth'
    torch.save(dict(meta={RECORD: record, 'dataset_meta': shown}, state_dict=model.state_dict()), path)
    return path
