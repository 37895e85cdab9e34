"""The smallest backbone of each family."""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import nn

TINY = {
    'CAFormer': dict(arch=dict(depths=[1, 2, 1, 1], dims=[8, 16, 32, 64])),
    'CoAtNet': dict(arch=dict(depths=[1, 2, 2, 1], dims=[8, 16, 32, 32], stem_width=[8, 8], dim_head=8)),
    'ConvFormer': dict(arch=dict(depths=[1, 2, 1, 1], dims=[8, 16, 24, 32])),
    'IdentityFormer': dict(arch=dict(depths=[1, 2, 1, 1], dims=[8, 16, 24, 32])),
    'PoolFormerV2': dict(arch=dict(depths=[1, 2, 1, 1], dims=[8, 16, 24, 32])),
    'RandFormer': dict(arch=dict(depths=[1, 2, 1, 1], dims=[8, 16, 24, 32])),
    'T2TViT': dict(arch=dict(depths=[2, 1], dim=32, num_heads=2, token_dim=8)),
    'VOLO': dict(arch=dict(depths=[2, 1, 2, 1], dims=[16, 32, 32, 32], num_heads=[2, 4, 4, 4], stem_dim=8)),
}
FAMILIES = sorted(TINY)


def build(name: str, **overrides) -> nn.Module:
    return MODELS.build(dict(type=name, **{**TINY[name], 'pretrain_img_size': 64, **overrides}))
