"""Batch norms of statistics that do not change, folded into the convolution before them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights


def folds(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    """Whether `norm` is a batch norm with statistics, and `conv` a convolution in two dimensions."""
    return isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm) and norm.running_mean is not None


def fold(conv: nn.Conv2d, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight (out, in, k, k) and bias (out,) of the convolution that is `norm(conv(x))` with `norm` in eval mode."""
    statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
    return weight.detach(), bias.detach()
