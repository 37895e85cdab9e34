"""Define the token mixers of the MetaFormer baselines (arXiv 2210.13452, sail-sg/metaformer), by name in `MIXERS`.

Each takes `dim`, its channels, and `size`, the side in tokens of its map at the trained image size, and maps
(B, H, W, C) to the same shape. Parameters are named as in the official code and timm, so their weights fit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_volo.models.backbones.layers import Attention

HEAD_DIM = 32


class StarReLU(nn.Module):
    """scale * relu(x)^2 + bias with both learned, from 1 and 0 as in the official code."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        if torch.is_grad_enabled() or x.dtype != self.scale.dtype:
            return self.scale * x.square() + self.bias
        return x.mul_(x).mul_(self.scale).add_(self.bias)  # the same numbers in half the time: in place


class SelfAttention(Attention):
    """Attention over all positions in heads of 32 channels, without any bias and without positions."""

    def __init__(self, dim: int, size: int):
        if dim % HEAD_DIM:
            raise ValueError(f'attention has heads of {HEAD_DIM} channels: its width must be a multiple, got {dim}')
        super().__init__(dim, dim // HEAD_DIM)
        self.proj = nn.Linear(dim, dim, bias=False)


class SepConv(nn.Module):
    """Inverted separable convolution 7x7, twice as wide inside (MobileNetV2, arXiv 1801.04381)."""

    def __init__(self, dim: int, size: int):
        super().__init__()
        self.pwconv1 = nn.Linear(dim, 2 * dim, bias=False)
        self.act1 = StarReLU()
        self.dwconv = nn.Conv2d(2 * dim, 2 * dim, 7, padding=3, groups=2 * dim, bias=False)
        self.pwconv2 = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.pwconv1(x)).permute(0, 3, 1, 2)
        x = self.pwconv2(self.dwconv(x).permute(0, 2, 3, 1))
        return x


class Pooling(nn.Module):
    """Mean of the 3x3 neighbours inside the map, minus the token itself (PoolFormer, arXiv 2111.11418)."""

    def __init__(self, dim: int, size: int):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x.permute(0, 3, 1, 2), 3, stride=1, padding=1, count_include_pad=False)
        return pooled.permute(0, 2, 3, 1) - x


class RandomMixing(nn.Module):
    """Mixes tokens by a fixed random matrix, whose rows are softmaxes of uniform numbers, drawn once, never trained.

    The matrix is made for the size x size tokens of the trained image. Deviation: the official code rejects maps of
    another size; here they are padded with zeros at the right and the bottom to whole windows of size x size tokens,
    each window is mixed, and the padding is cropped. A map of size x size is one window: the official result.

    In the official code `random_matrix` is a parameter without gradient; here it is a buffer of the same name.
    """

    random_matrix: Tensor

    def __init__(self, dim: int, size: int):
        super().__init__()
        self.size = size
        self.register_buffer('random_matrix', torch.rand(size**2, size**2).softmax(dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % self.size, 0, -height % self.size))
        windows = x.unflatten(2, (-1, self.size)).unflatten(1, (-1, self.size)).transpose(2, 3)
        mixed = self.random_matrix @ windows.flatten(3, 4)  # (B, rows, columns, size * size, C)
        mixed = mixed.unflatten(3, (self.size, self.size)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        x = mixed[:, :height, :width]
        return x


MIXERS: dict[str, type[nn.Module]] = {
    'identity': nn.Identity,
    'random': RandomMixing,
    'pool': Pooling,
    'sep_conv': SepConv,
    'attention': SelfAttention,
}
