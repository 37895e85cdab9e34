"""Define the blocks of CoAtNet.

`a` is a row of the table of variants in `coatnet.py`. Maps are (B, C, H, W); the transformer keeps them channels-last
in memory.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_volo.models.backbones.layers import DropPath, LayerNorm2d, Mlp
from mmseg_volo.models.backbones.rel_attention import RelPosBias, RelPosMlp, relative_attention


@dataclass(frozen=True)
class Arch:
    """One variant: tables 3, 11 and 12 of the paper, or timm's configuration, with timm's names of fields."""

    depths: Sequence[int]  # blocks per stage
    dims: Sequence[int]
    stem_width: Sequence[int]  # of its two convolutions
    dim_head: int = 32
    lead: Sequence[int] = ()  # (blocks, width) of MBConv blocks at the start of the third stage, counted in its depth
    # MBConv
    act_layer: str = 'gelu'
    pre_norm_act: bool = False  # an activation behind the first norm too
    stride_mode: str = 'dw'  # where a stage's first block strides: 'dw', '1x1' (the convolutions) or 'pool'
    expand_output: bool = True  # hidden width is 4x the output's, not the input's; the squeeze 1/4 of the output's
    output_bias: bool = True
    attn_early: bool = False  # squeeze and excitation before the second norm
    attn_act_layer: str = 'silu'
    # transformer
    expand_first: bool = True  # attention has the output's width, not the input's
    shortcut_bias: bool = True
    norm_layer: str = 'layernorm2d'  # or 'batchnorm2d'
    init_values: float | None = None  # of a learned scale per channel of each residual branch; none if None
    rel_pos_type: str = 'bias'  # a table, or 'mlp'
    rel_pos_dim: int = 512  # hidden width of the 'mlp'
    rel_pos_resize: str = 'bilinear'  # of the table to another size, as in the paper; or timm's 'geometric'
    # both
    pool_type: str = 'avg2'  # of the shortcuts: mean over 2x2, or 'max' over 3x3


def silu(x: Tensor) -> Tensor:
    """SiLU, in place without gradients: its input is always the fresh result of a norm or a convolution."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


ACTS: dict[str, Callable[[Tensor], Tensor]] = {'gelu': F.gelu, 'silu': silu, 'relu': F.relu}


def init_conv(conv: nn.Conv2d) -> None:
    """Initialise a convolution from a normal distribution by its fan-out, as in EfficientNet and timm."""
    fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class Stem(nn.Module):
    """Two 3x3 convolutions, the first at stride 2: (B, in, H, W) -> (B, C, H / 2, W / 2)."""

    def __init__(self, in_channels: int, a: Arch):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, a.stem_width[0], 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(a.stem_width[0])
        self.conv2 = nn.Conv2d(a.stem_width[0], a.stem_width[1], 3, 1, 1, bias=False)
        self.act = ACTS[a.act_layer]
        for conv in (self.conv1, self.conv2):
            init_conv(conv)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.act(self.norm1(self.conv1(x))))
        return x


class Downsample(nn.Module):
    """Pools if `stride` is 2, and projects if widths differ: (B, C, H, W) -> (B, out, H / stride, W / stride)."""

    def __init__(self, dim: int, out_dim: int, stride: int, pool_type: str = 'avg2', bias: bool = True):
        super().__init__()
        pool = nn.MaxPool2d(3, 2, 1) if pool_type == 'max' else nn.AvgPool2d(2)
        self.pool = pool if stride == 2 else nn.Identity()
        self.expand = nn.Conv2d(dim, out_dim, 1, bias=bias) if dim != out_dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(self.pool(x))
        return x


class SqueezeExcite(nn.Module):
    """Scales channels by a function of their means (arXiv 1709.01507)."""

    def __init__(self, dim: int, hidden_dim: int, act_layer: str):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1)
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1)
        self.act = ACTS[act_layer]

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * weight


class MBConv(nn.Module):
    """Pre-norm inverted bottleneck with squeeze and excitation: (B, C, H, W) -> (B, out, H / stride, W / stride)."""

    def __init__(self, a: Arch, dim: int, out_dim: int, stride: int, drop_path: float):
        super().__init__()
        hidden = 4 * (out_dim if a.expand_output else dim)
        strides = {mode: stride if mode == a.stride_mode else 1 for mode in ('pool', '1x1', 'dw')}
        self.shortcut = Downsample(dim, out_dim, stride, a.pool_type, a.output_bias)
        self.pre_norm = nn.BatchNorm2d(dim)
        self.down = Downsample(
            dim, dim, strides['pool']
        )  # timm's: a mean over 2x2, also where the shortcut's is a maximum
        self.conv1_1x1 = nn.Conv2d(dim, hidden, 1, strides['1x1'], bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.conv2_kxk = nn.Conv2d(hidden, hidden, 3, strides['dw'], 1, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        se = SqueezeExcite(hidden, (out_dim if a.expand_output else hidden) // 4, a.attn_act_layer)
        self.se_early = se if a.attn_early else nn.Identity()
        self.se = nn.Identity() if a.attn_early else se
        self.conv3_1x1 = nn.Conv2d(hidden, out_dim, 1, bias=a.output_bias)
        self.drop_path = DropPath(drop_path)
        self.act, self.pre_act = ACTS[a.act_layer], a.pre_norm_act
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pre_norm(x)
        y = self.down(self.act(y) if self.pre_act else y)
        y = self.conv1_1x1(y)  # one operation a line, so that inputs are freed early
        y = self.act(self.norm1(y))
        y = self.conv2_kxk(y)
        y = self.se_early(y)
        y = self.se(self.act(self.norm2(y)))
        x = self.drop_path(self.conv3_1x1(y)) + self.shortcut(x)
        return x


class RelativeAttention(nn.Module):
    """Multi-head self-attention with relative position biases: (B, C, H, W) -> (B, out, H, W)."""

    def __init__(self, a: Arch, dim: int, out_dim: int, grid: int):
        super().__init__()
        width = out_dim if a.expand_first else dim
        if width % a.dim_head:
            raise ValueError(f'CoAtNet: attention of width {width} does not divide into heads of {a.dim_head}')
        self.dim_head, self.num_heads = a.dim_head, width // a.dim_head
        self.qkv = nn.Linear(dim, 3 * width)
        if a.rel_pos_type == 'mlp':
            self.rel_pos: nn.Module = RelPosMlp(a.rel_pos_dim, self.num_heads)
        else:
            self.rel_pos = RelPosBias(grid, self.num_heads, a.rel_pos_resize)
        self.proj = nn.Linear(width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x.permute(0, 2, 3, 1)).unflatten(3, (self.num_heads, 3, self.dim_head))
        q, k, v = qkv.permute(4, 0, 3, 1, 2, 5).unbind(0)  # (B, heads, H, W, dim_head)
        out = relative_attention(q, k, v, self.rel_pos(*x.shape[2:]))
        x = self.proj(out.permute(0, 2, 3, 1, 4).flatten(3)).permute(0, 3, 1, 2)
        return x


class LayerScale(nn.Module):
    """A learned factor per channel of a (B, C, H, W) map."""

    def __init__(self, dim: int, init_values: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init_values))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma[:, None, None]


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: (B, C, H, W) -> (B, out, H / stride, W / stride), both channels-last in memory."""

    def __init__(self, a: Arch, dim: int, out_dim: int, stride: int, grid: int, drop_path: float):
        super().__init__()
        norm = nn.BatchNorm2d if a.norm_layer == 'batchnorm2d' else LayerNorm2d
        self.shortcut = Downsample(dim, out_dim, stride, a.pool_type, a.shortcut_bias)
        self.norm1: nn.Module = norm(dim, eps=1e-6)
        if stride == 2:
            self.norm1 = nn.Sequential(OrderedDict(norm=self.norm1, down=Downsample(dim, dim, 2, a.pool_type)))
        self.attn = RelativeAttention(a, dim, out_dim, grid)
        self.norm2 = norm(out_dim, eps=1e-6)
        self.mlp = Mlp(out_dim, 4 * out_dim)
        self.ls1 = nn.Identity() if a.init_values is None else LayerScale(out_dim, a.init_values)
        self.ls2 = nn.Identity() if a.init_values is None else LayerScale(out_dim, a.init_values)
        self.drop_path = DropPath(drop_path)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=1e-6 if 'mlp' in name else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        # the branch stands first in the sum, which takes its memory format, channels-last
        x = self.drop_path(self.ls1(self.attn(self.norm1(x)))) + self.shortcut(x)
        y = self.mlp(self.norm2(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.drop_path(self.ls2(y)) + x
        return x
