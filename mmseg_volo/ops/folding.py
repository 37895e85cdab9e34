"""Batch norms of statistics that do not change, folded into the convolution before them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def folds(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    """Whether `norm` is a batch norm with statistics, and `conv` a convolution in two dimensions."""
    return isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm) and norm.running_mean is not None


def fold(conv: nn.Conv2d, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight (out, in, k, k) and bias (out,) of the convolution that is `norm(conv(x))` with `norm` in eval mode.

    In the steps of torch's `fuse_conv_bn_weights`, which makes Parameters, where torch.compile breaks its graph.
    """
    rsqrt = torch.rsqrt(norm.running_var + norm.eps)
    scale = rsqrt if norm.weight is None else rsqrt * norm.weight
    bias = (0 if conv.bias is None else conv.bias) - norm.running_mean
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias
    return (conv.weight * scale[:, None, None, None]).detach(), bias.detach()
