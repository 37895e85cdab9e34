"""The shipped experiments, and their models without numbers."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from torch import nn

from mmseg_volo.config import CONFIGS, load_config

# one of each family, head and data set; the largest ones recompute their blocks
KINDS = [
    'caformer_s18_ade20k_segformer',
    'coatnet_0_rw_ade20k_segformer',
    'convformer_s18_ade20k',
    't2t_vit_14_ade20k_segformer',
    't2t_vit_t_14_ade20k',
    'volo_d4_cityscapes',
]
ALL = os.environ.get('REHEARSE') == 'all'

EXPERIMENTS = sorted(CONFIGS.glob('*.py'))
NAMES = [p.stem for p in EXPERIMENTS]
every = pytest.mark.parametrize('path', EXPERIMENTS, ids=NAMES)


@functools.cache
def on_meta(path: Path) -> nn.Module:
    """The model of a config without numbers; built once, as it takes a second."""
    cfg = load_config(path)
    for part in cfg.model.values():
        if isinstance(part, dict):
            part.pop('init_cfg', None)
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg.model)
