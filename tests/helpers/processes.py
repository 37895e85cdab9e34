"""A training in several processes, and the processes of a job."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# No norm over images, no random numbers in the model or the pipeline: a batch gives the mean of what its images give.
# The loss is the mean over pixels with a label, of each process: the labels must leave out equally many, here none.
CONFIG = """
_base_ = ['{configs}/_base_/models/segformer.py', '{configs}/_base_/datasets/demo.py',
          '{configs}/_base_/schedules/adamw_80k.py', '{configs}/_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(size=(64, 128)),
    backbone=dict(type='CAFormer', arch=dict(depths=[1, 1, 1, 2], dims=[8, 16, 32, 32]), with_cp=True),
    decode_head=dict(
        in_channels=[8, 16, 32, 32], channels=16, num_classes=_base_.num_classes, norm_cfg={norm}, dropout_ratio=0
    ),
    test_cfg=dict(mode='slide', crop_size=(64, 128), stride=(48, 96)),
)
# a large eps: without it Adam turns the rounding errors of tiny gradients into whole steps
optim_wrapper = dict(
    optimizer=dict(lr=0.5, eps=0.01), clip_grad=dict(max_norm=0.5), paramwise_cfg=dict(layer_decay_rate=0.9)
)
param_scheduler = [dict(type='LinearLR', start_factor=1 / 60, begin=0, end=1500, by_epoch=False)]  # few iterations
fixed = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(128, 64)),
    dict(type='PackSegInputs'),
]
here = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=2, sampler=dict(seed=0), dataset=dict(pipeline=fixed), **here)
val_dataloader = here
test_dataloader = here
train_cfg = dict(max_iters=6, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=3, max_keep_ckpts=-1), logger=dict(interval=1))
randomness = dict(seed=0)
"""
ENV = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'CUDA_VISIBLE_DEVICES': ''}


def processes_below(pid: int) -> dict[str, int]:
    """Process ids by their RANK."""
    children = map(int, Path(f'/proc/{pid}/task/{pid}/children').read_text().split())
    found = {}
    for child in children:
        variables = Path(f'/proc/{child}/environ').read_text().split('\0')
        found |= {v.removeprefix('RANK='): child for v in variables if v.startswith('RANK=')}
    return found
