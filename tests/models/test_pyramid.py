from __future__ import annotations

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch import nn

from mmseg_volo.models.backbones.volo import VOLO
from mmseg_volo.models.necks import StridePyramid

TINY = dict(depths=[1, 1, 1, 1], dims=[16, 32, 32, 32], num_heads=[2, 4, 4, 4], stem_dim=8)


@pytest.mark.parametrize('out_strides', [(4, 8, 16, 32), (8, 16, 16, 16), (4, 8, 16, 16), (2, 4, 32, 64)])
@pytest.mark.parametrize('size', [(64, 128), (128, 64)])
def test_strides(size: tuple[int, int], out_strides: tuple[int, ...]) -> None:
    backbone = VOLO(TINY)
    neck = StridePyramid(backbone.out_channels, backbone.out_strides, out_strides, out_channels=(8, 16, 24, 40))
    neck = revert_sync_batchnorm(neck).train()
    maps = neck(backbone(torch.randn(2, 3, *size)))
    assert neck.out_strides == out_strides
    for m, stride, channels in zip(maps, out_strides, neck.out_channels, strict=True):
        assert m.shape == (2, channels, size[0] // stride, size[1] // stride)
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad.abs().sum() > 0 for p in [*neck.parameters(), *backbone.parameters()])


def test_finer_maps_are_aligned_with_the_coarse_ones() -> None:
    """A pixel of a coarse map becomes the ratio x ratio pixels of the fine map that it covers, and no others."""
    neck = revert_sync_batchnorm(StridePyramid([3], [8], [4], norm_cfg=dict(type='BN'))).eval()
    spot = torch.zeros(1, 3, 5, 7)
    spot[0, :, 2, 4] = 1
    changed = (neck.sides[0][0](spot) != 0).any(1)[0].nonzero().tolist()
    assert changed == [[4, 8], [4, 9], [5, 8], [5, 9]]


def lvvit_side(*convolutions: nn.Module) -> nn.Sequential:
    """A side layer in zihangJiang/TokenLabeling: convolutions, each with a norm and a ReLU."""
    layers = [m for c in convolutions for m in (c, nn.BatchNorm2d(c.out_channels), nn.ReLU())]
    return nn.Sequential(*layers)


def test_refined_it_is_lvvits_neck() -> None:
    """`side_layer1` to `4` of its `seg/mmseg/models/backbones/vit.py`: the same keys, shapes and numbers."""
    dim, wide = 6, 20
    theirs = nn.ModuleList(
        [
            lvvit_side(nn.ConvTranspose2d(dim, dim, 4, 4, bias=False), nn.Conv2d(dim, dim, 1, bias=False)),
            lvvit_side(nn.ConvTranspose2d(dim, dim, 2, 2, bias=False), nn.Conv2d(dim, dim, 1, bias=False)),
            lvvit_side(nn.Conv2d(dim, dim, 1, bias=False)),
            lvvit_side(nn.Conv2d(dim, wide, 1, bias=False)),
        ]
    )
    kinds = dict(out_strides=(4, 8, 16, 16), out_channels=(dim, dim, dim, wide), norm_cfg=dict(type='BN'))
    ours = StridePyramid([dim] * 4, [16] * 4, refine=True, **kinds)
    ours.sides.load_state_dict(theirs.state_dict())
    maps = [torch.randn(2, dim, 4, 6) for _ in range(4)]
    for out, side, m in zip(ours(maps), theirs, maps, strict=True):
        torch.testing.assert_close(out, side(m))


def test_unnamed_it_is_the_neck_of_old_checkpoints() -> None:
    old = StridePyramid([16, 32, 32, 32], [8, 16, 16, 16], norm_cfg=dict(type='BN')).state_dict()
    assert {k: tuple(v.shape) for k, v in old.items() if v.ndim > 1} == {
        'sides.0.0.weight': (16, 16, 2, 2),
        'sides.1.0.weight': (32, 32, 2, 2),
        'sides.2.0.weight': (32, 32, 1, 1),
        'sides.3.0.weight': (32, 32, 3, 3),
    }


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match='one entry per map'):
        StridePyramid([16, 32], [8, 16])
    with pytest.raises(ValueError, match='cannot go from stride 8 to 12'):
        StridePyramid([16], [8], [12])
