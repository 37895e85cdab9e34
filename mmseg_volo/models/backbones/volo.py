"""Define VOLO, Vision Outlooker (arXiv 2106.13112, sail-sg/volo): one stage of outlookers, three of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmseg_volo.models.backbones.base import Backbone, resolve_arch
from mmseg_volo.models.backbones.layers import Attention, Block, init_truncated_normal, resize_grid
from mmseg_volo.ops.outlook_attention import WINDOW, outlook


@dataclass(frozen=True)
class Arch:
    """One row of table 2 of the paper."""

    depths: Sequence[int]  # blocks per stage; stage 0 is outlookers, the others are transformers
    dims: Sequence[int]
    num_heads: Sequence[int]
    mlp_ratio: float = 3.0
    stem_dim: int = 64


ARCHS = {
    'd1': Arch((4, 4, 8, 2), (192, 384, 384, 384), (6, 12, 12, 12)),
    'd2': Arch((6, 4, 10, 4), (256, 512, 512, 512), (8, 16, 16, 16)),
    'd3': Arch((8, 8, 16, 4), (256, 512, 512, 512), (8, 16, 16, 16)),
    'd4': Arch((8, 8, 16, 4), (384, 768, 768, 768), (12, 16, 16, 16)),
    'd5': Arch((12, 12, 20, 4), (384, 768, 768, 768), (12, 16, 16, 16), mlp_ratio=4.0, stem_dim=128),
}
STRIDES = (8, 16, 16, 16)


class OutlookAttention(nn.Module):
    """Mixes each 3x3 window by weights computed from its centre alone.

    Parameters are named as in sail-sg/volo and timm (`v`, `attn`, `proj`), so their weights fit.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.v = nn.Linear(dim, dim, bias=False)
        self.attn = nn.Linear(dim, WINDOW * WINDOW * num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> same
        centre = F.avg_pool2d(x.permute(0, 3, 1, 2), 2, ceil_mode=True).permute(0, 2, 3, 1)
        logits = self.attn(centre).unflatten(3, (self.num_heads, WINDOW, WINDOW))
        x = self.proj(outlook(self.v(x), logits))
        return x


def _tokens(x: Tensor) -> Tensor:
    """Permute (B, C, H, W) to (B, H, W, C), contiguous: otherwise every norm of the stage would copy it first."""
    return x.permute(0, 2, 3, 1).contiguous()


class ChannelsLastConv2d(nn.Conv2d):
    """Convolves channels-last on CPUs without gradients, which takes the stem two thirds of the time."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.device.type == 'cpu' and not torch.is_grad_enabled():
            input = input.contiguous(memory_format=torch.channels_last)
        x: Tensor = super()._conv_forward(input, weight, bias)
        return x


class Stem(nn.Module):
    """Three convolutions at stride 2, then a projection of 4x4 patches: (B, in, H, W) -> (B, H / 8, W / 8, C)."""

    def __init__(self, in_channels: int, stem_dim: int, dim: int):
        super().__init__()
        layers: list[nn.Module] = []
        for i, (channels, kernel) in enumerate(((in_channels, 7), (stem_dim, 3), (stem_dim, 3))):
            conv, stride = (nn.Conv2d, 1) if i else (ChannelsLastConv2d, 2)
            layers += [
                conv(channels, stem_dim, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(stem_dim),
                nn.ReLU(inplace=True),
            ]
        self.conv = nn.Sequential(*layers)
        self.proj = nn.Conv2d(stem_dim, dim, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return _tokens(self.proj(self.conv(x)))


class Downsample(nn.Module):
    """Projects 2x2 patches to one token: (B, H, W, C) -> (B, H / 2, W / 2, out)."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.proj = nn.Conv2d(dim, out_dim, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return _tokens(self.proj(x.permute(0, 3, 1, 2)))


def _resolve(arch: str | Mapping[str, Any]) -> Arch:
    a = resolve_arch('VOLO', ARCHS, arch)
    if not len(a.depths) == len(a.dims) == len(a.num_heads) == len(STRIDES):
        raise ValueError(f'VOLO: depths, dims and num_heads must have {len(STRIDES)} entries, got {a}')
    if len(set(a.dims[1:])) != 1 or any(d % h for d, h in zip(a.dims, a.num_heads, strict=True)):
        raise ValueError(f'VOLO: stages 1 to 3 share one width, and each width divides into its heads, got {a}')
    return a


def _stage(a: Arch, i: int, rates: Sequence[float]) -> nn.Sequential:
    dim, mixer = a.dims[i], Attention if i else OutlookAttention
    return nn.Sequential(*(Block(dim, mixer(dim, a.num_heads[i]), a.mlp_ratio, rate if i else 0.0) for rate in rates))


@MODELS.register_module()
class VOLO(Backbone):
    """VOLO D1 to D5 as a backbone of four maps, at strides 8, 16, 16, 16.

    Stochastic depth acts on the transformer stages only, its rate growing with the block's index in the whole network,
    as in sail-sg/volo and timm. Deviation: the position grid is resized to the input in every forward pass, in the way
    sail-sg/volo resizes it once, when it loads weights of another size (bicubic; timm does not resize it).

    Args:
        arch: 'd1' to 'd5', or a dict with the fields of `Arch`.

    The other arguments are those of `Backbone`.
    """

    stem_key = 'patch_embed.conv.0.weight'
    ignored_keys = ('cls_token', 'post_network.', 'norm.', 'head.', 'aux_head.')

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        pretrain_img_size: int = 224,
        with_cp: bool = False,
        out_norm: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ):
        a = _resolve(arch)
        super().__init__(
            a.dims,
            STRIDES,
            out_indices=out_indices,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            frozen_stages=frozen_stages,
            pretrain_img_size=pretrain_img_size,
            with_cp=with_cp,
            out_norm=out_norm,
            init_cfg=init_cfg,
        )
        self.patch_embed = Stem(in_channels, a.stem_dim, a.dims[0])
        rates = torch.linspace(0, drop_path_rate, sum(a.depths), device='cpu').tolist()
        stages: list[nn.Module] = []
        for i in range(self.num_stages):
            first = sum(a.depths[:i])
            stages.append(_stage(a, i, rates[first : first + a.depths[i]]))
        # `network` counts the downsampling as a stage of its own, as the official checkpoints do
        if self.num_stages > 1:
            stages.insert(1, Downsample(a.dims[0], a.dims[1]))
            grid = pretrain_img_size // STRIDES[1]
            self.pos_embed = nn.Parameter(torch.empty(1, grid, grid, a.dims[1]))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.network = nn.ModuleList(stages)
        init_truncated_normal(self, nn.Linear)
        self._freeze()

    def _stage_modules(self) -> Sequence[Sequence[nn.Module | nn.Parameter]]:
        modules: list[list[nn.Module | nn.Parameter]] = [[self.patch_embed], [self.network[0]]]
        if self.num_stages > 1:
            modules.append([self.network[1], self.pos_embed, self.network[2]])
        return [*modules, *([stage] for stage in self.network[3:])]

    def _convert(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.num_stages == 1:
            unbuilt: tuple[str, ...] = ('pos_embed', 'network.1.', 'network.2.', 'network.3.', 'network.4.')
        else:
            unbuilt = tuple(f'network.{i}.' for i in range(self.num_stages + 1, 5))
        return {k: v for k, v in state_dict.items() if not k.startswith(unbuilt)}

    def _stages_forward(self, x: Tensor) -> list[Tensor]:
        x = self._run_blocks(self.network[0], self.patch_embed(x))
        maps = [x]
        if self.num_stages > 1:
            x = self.network[1](x)
            x = x + resize_grid(self.pos_embed, *x.shape[1:3])
        for stage in self.network[2:]:
            x = self._run_blocks(stage, x)
            maps.append(x)
        return [m.permute(0, 3, 1, 2) for m in maps]
