"""Define the layers that two or more families use."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth per sample (arXiv 1603.09382): drops a residual branch, scales kept ones by 1 / keep."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        return f'{self.rate:.3f}'


class Mlp(nn.Module):
    """Two linear layers with a GELU between, on the last axis."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(F.gelu(self.fc1(x)))
        return x


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, H, W) map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over all positions of a (B, H, W, C) map, scale head_dim^-0.5."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).flatten(1, 2).unflatten(2, (3, self.num_heads, -1))  # (B, H * W, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        x = self.proj(out.transpose(1, 2).reshape(x.shape))
        return x


class Block(nn.Module):
    """Pre-norm residual block on (B, H, W, C): an outlooker or a transformer block, depending on the mixer."""

    def __init__(self, dim: int, mixer: nn.Module, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = mixer
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


def init_truncated_normal(model: nn.Module, *kinds: type[nn.Linear | nn.Conv2d]) -> None:
    """Initialise all modules of these types: weights from a truncated normal distribution (std 0.02), biases zero."""
    for module in model.modules():
        if isinstance(module, kinds):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def resize_grid(grid: Tensor, height: int, width: int) -> Tensor:
    """Resize a position table (1, h, w, C) to (1, height, width, C), bicubically.

    As utils/utils.py of sail-sg/volo and utils.py of T2T-ViT do when they load weights of another image size, and as
    LV-ViT's segmentation code does in every forward pass.
    """
    if grid.shape[1:3] == (height, width):
        return grid
    grid = F.interpolate(grid.permute(0, 3, 1, 2), size=(height, width), mode='bicubic', align_corners=False)
    return grid.permute(0, 2, 3, 1)
