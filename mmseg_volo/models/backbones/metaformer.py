"""Define the MetaFormer baselines (arXiv 2210.13452, sail-sg/metaformer): four stages, any token mixer in each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmseg_volo.models.backbones.base import Backbone, resolve_arch
from mmseg_volo.models.backbones.layers import DropPath, init_truncated_normal
from mmseg_volo.models.backbones.mixers import MIXERS, StarReLU


@dataclass(frozen=True)
class Arch:
    """One size of metaformer_baselines.py in sail-sg/metaformer."""

    depths: Sequence[int]  # blocks per stage
    dims: Sequence[int]


ARCHS = dict.fromkeys(
    ('IdentityFormer', 'RandFormer', 'PoolFormerV2'),
    {
        's12': Arch((2, 2, 6, 2), (64, 128, 320, 512)),
        's24': Arch((4, 4, 12, 4), (64, 128, 320, 512)),
        's36': Arch((6, 6, 18, 6), (64, 128, 320, 512)),
        'm36': Arch((6, 6, 18, 6), (96, 192, 384, 768)),
        'm48': Arch((8, 8, 24, 8), (96, 192, 384, 768)),
    },
) | dict.fromkeys(
    ('ConvFormer', 'CAFormer'),
    {
        's18': Arch((3, 3, 9, 3), (64, 128, 320, 512)),
        's36': Arch((3, 12, 18, 3), (64, 128, 320, 512)),
        'm36': Arch((3, 12, 18, 3), (96, 192, 384, 576)),
        'b36': Arch((3, 12, 18, 3), (128, 256, 512, 768)),
    },
)
STRIDES = (4, 8, 16, 32)
SCALED_STAGES = (2, 3)  # whose shortcuts are scaled (ResScale)
MLP_RATIO = 4
OFFICIAL_KEYS = (  # sail-sg/metaformer's names -> timm's, which are ours; no name of timm's matches
    (re.compile(r'^downsample_layers\.0\.(?:post_)?(norm|conv)\.'), r'stem.\1.'),
    (re.compile(r'^downsample_layers\.(\d)\.(?:pre_)?(norm|conv)\.'), r'stages.\1.downsample.\2.'),
    (re.compile(r'^stages\.(\d)\.(\d+)\.'), r'stages.\1.blocks.\2.'),
)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm without bias over the channels of a (B, H, W, C) map."""

    def __init__(self, dim: int):
        super().__init__(dim, eps=1e-6, bias=False)


class JointNorm(nn.Module):
    """Norm over (H, W, C) together of each (B, H, W, C) map, with a weight per channel, without bias."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        # group_norm of a channels-last view: a layer_norm and a product would keep another map for the gradient
        maps = x.permute(0, 3, 1, 2)
        if torch.is_grad_enabled() and self.weight.requires_grad and not x.requires_grad:
            maps = maps.contiguous()  # torch 2.10 crashes in the gradient of the weight alone, channels last
        return F.group_norm(maps, 1, self.weight, eps=1e-6).permute(0, 2, 3, 1)


class Scale(nn.Module):
    """One learned factor per channel, from 1."""

    def __init__(self, dim: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class StarMlp(nn.Module):
    """Two linear layers without bias and StarReLU between, on the last axis."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, MLP_RATIO * dim, bias=False)
        self.act = StarReLU()
        self.fc2 = nn.Linear(MLP_RATIO * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(self.act(self.fc1(x)))
        return x


class MetaFormerBlock(nn.Module):
    """Pre-norm residual block on (B, H, W, C); if `scaled`, with a learned factor on its shortcuts (ResScale)."""

    def __init__(self, dim: int, mixer: nn.Module, norm: type[nn.Module], drop_path: float, scaled: bool):
        super().__init__()
        self.norm1 = norm(dim)
        self.token_mixer = mixer
        self.res_scale1 = Scale(dim) if scaled else nn.Identity()
        self.norm2 = norm(dim)
        self.mlp = StarMlp(dim)
        self.res_scale2 = Scale(dim) if scaled else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.res_scale1(x) + self.drop_path(self.token_mixer(self.norm1(x)))
        x = self.res_scale2(x) + self.drop_path(self.mlp(self.norm2(x)))
        return x


class Stem(nn.Module):
    """(B, in, H, W) -> (B, H / 4, W / 4, C)."""

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, dim, 7, 4, 2)
        self.norm = ChannelNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return x


class Downsample(nn.Module):
    """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), out)."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.conv = nn.Conv2d(dim, out_dim, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x


class MetaFormer(Backbone):
    """Base class of the five families: maps at strides 4, 8, 16 and 32; drop rates grow linearly over all blocks.

    Images are padded to a multiple of 4, not of 32: the downsampling convolutions round up by themselves. So each
    token of each stage covers at least one pixel of the image, and no token made of padding alone takes part in
    attention, nor in the statistics over (H, W, C) of IdentityFormer, RandFormer and PoolFormerV2. For any multiple
    of 4 the features are the official ones, except RandFormer's at other sizes than the trained one (`RandomMixing`).

    Args:
        arch: a name of the family's table, or a dict with the fields of `Arch`.
        pretrain_img_size: sets the size of the matrices of `random` mixers; other mixers do not use it.
        mixers: four names of `MIXERS`, one per stage; the family's own if None.

    The other arguments are those of `Backbone`.
    """

    stem_key = 'stem.conv.weight'
    ignored_keys = ('norm.', 'head.')
    archs: Mapping[str, Arch]
    default_mixers: tuple[str, ...]
    norm: type[nn.Module]  # of the blocks; stem and downsampling always take ChannelNorm

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
        mixers: Sequence[str] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ):
        name = type(self).__name__
        a = resolve_arch(name, self.archs, arch)
        if not len(a.depths) == len(a.dims) == len(STRIDES):
            raise ValueError(f'{name}: depths and dims must have {len(STRIDES)} entries, got {a}')
        mixers = self.default_mixers if mixers is None else tuple(mixers)
        if len(mixers) != len(STRIDES) or not MIXERS.keys() >= set(mixers):
            raise ValueError(f'{name}: mixers must be {len(STRIDES)} of {sorted(MIXERS)}, got {mixers}')
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
        self.pad_to = STRIDES[0]
        self.stem = Stem(in_channels, a.dims[0])
        rates = torch.linspace(0, drop_path_rate, sum(a.depths), device='cpu').tolist()
        self.stages = nn.ModuleList(self._stage(a, i, mixers[i], rates) for i in range(self.num_stages))
        init_truncated_normal(self, nn.Linear, nn.Conv2d)
        self._freeze()

    def _stage(self, a: Arch, i: int, mixer: str, rates: Sequence[float]) -> nn.ModuleDict:
        dim, first, size = a.dims[i], sum(a.depths[:i]), self.pretrain_img_size // STRIDES[i]
        blocks = (
            MetaFormerBlock(dim, MIXERS[mixer](dim, size), self.norm, rate, scaled=i in SCALED_STAGES)
            for rate in rates[first : first + a.depths[i]]
        )
        downsample = Downsample(a.dims[i - 1], dim) if i else nn.Identity()
        return nn.ModuleDict({'downsample': downsample, 'blocks': nn.Sequential(*blocks)})

    def _stage_modules(self) -> Sequence[Sequence[nn.Module | nn.Parameter]]:
        return [[self.stem], *([stage] for stage in self.stages)]

    def _convert(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        unbuilt = tuple(f'stages.{i}.' for i in range(self.num_stages, len(STRIDES)))
        converted = {}
        for key, weight in state_dict.items():
            for pattern, ours in OFFICIAL_KEYS:
                key = pattern.sub(ours, key)
            if not key.startswith(unbuilt):
                # timm has 1x1 convolutions where the official code and ours have linear layers
                converted[key] = weight.flatten(1) if weight.shape[2:] == (1, 1) else weight
        return converted

    def _stages_forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in cast('Iterable[nn.ModuleDict]', self.stages):
            x = self._run_blocks(stage['blocks'], stage['downsample'](x))
            maps.append(x.permute(0, 3, 1, 2))
        return maps


@MODELS.register_module()
class IdentityFormer(MetaFormer):
    """MetaFormer whose tokens are mixed by the downsampling only: s12, s24, s36, m36, m48."""

    archs = ARCHS['IdentityFormer']
    default_mixers = ('identity',) * 4
    norm = JointNorm


@MODELS.register_module()
class RandFormer(MetaFormer):
    """MetaFormer with fixed random mixing in the last two stages (see `RandomMixing`): s12, s24, s36, m36, m48."""

    archs = ARCHS['RandFormer']
    default_mixers = ('identity', 'identity', 'random', 'random')
    norm = JointNorm


@MODELS.register_module()
class PoolFormerV2(MetaFormer):
    """MetaFormer with average pooling in every stage: s12, s24, s36, m36, m48."""

    archs = ARCHS['PoolFormerV2']
    default_mixers = ('pool',) * 4
    norm = JointNorm


@MODELS.register_module()
class ConvFormer(MetaFormer):
    """MetaFormer with separable convolutions in every stage: s18, s36, m36, b36."""

    archs = ARCHS['ConvFormer']
    default_mixers = ('sep_conv',) * 4
    norm = ChannelNorm


@MODELS.register_module()
class CAFormer(MetaFormer):
    """MetaFormer with separable convolutions in two stages, attention in two: s18, s36, m36, b36."""

    archs = ARCHS['CAFormer']
    default_mixers = ('sep_conv', 'sep_conv', 'attention', 'attention')
    norm = ChannelNorm
