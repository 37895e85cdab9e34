"""A small CoAtNet, alone and in a segmentor."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmseg_volo.config import load_config
from mmseg_volo.models.backbones.coatnet import ARCHS, CoAtNet

SMALL = dict(depths=(1, 2, 2, 2), dims=(32, 64, 64, 128), stem_width=(16, 32))

HALF = ((127.5,) * 3, (127.5,) * 3)
KNOWN = 'coatnet_0_rw_224_sw-a6439706.pth'  # timm's file on GitHub


def fields(name: str, **changes) -> dict:
    """A row of the table as a dict, shrunken unless told otherwise."""
    row = dataclasses.replace(ARCHS[name], **changes)
    return {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}


def randomise(model: nn.Module) -> nn.Module:
    """What starts at zero, at one or at 1e-6 would prove nothing."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith('relative_position_bias_table'):
            nn.init.normal_(tensor)
        elif name.endswith(('.gamma', 'running_var')) or ('norm' in name and name.endswith('.weight')):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif name.endswith(('.bias', 'running_mean')):
            nn.init.normal_(tensor, std=0.1)
    return model


@pytest.fixture
def small(tmp_path: Path) -> Config:
    """A small CoAtNet that starts from weights that are called as timm's, in a segmentor that normalises otherwise."""
    arch, path = fields('0_rw', **SMALL), tmp_path / KNOWN
    torch.save(CoAtNet(arch, pretrain_img_size=64).state_dict(), path)
    cfg = load_config('caformer_s18_ade20k_segformer')
    start = dict(type='Pretrained', checkpoint=str(path))
    cfg.model.backbone = dict(type='CoAtNet', arch=arch, pretrain_img_size=64, init_cfg=start)
    cfg.model.decode_head.update(in_channels=[*SMALL['dims']], channels=8)
    return Config(dict(model=cfg.model, work_dir=str(tmp_path / 'work'), default_scope='mmseg'))


def built(cfg: Config) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg.model)
