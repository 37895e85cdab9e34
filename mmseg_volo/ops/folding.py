"""Batch norms of statistics that do not change, folded into the convolution before them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def folds(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    """Whether `norm` is a batch norm with statistics, and `conv` a convolution in two dimensions."""
    return isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm) and norm.running_mean is not None


def fold(conv: nn.Conv2d, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight (out, in, k, k) and bias (out,) of the convolution that is `norm(conv(x))` with `norm` in eval mode."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias
    return (conv.weight * scale[:, None, None, None]).detach(), bias.detach()


class FoldedSequential(nn.Sequential):
    """Modules in turn; in eval mode and without gradients batch norms are folded into convolutions before them."""

    def forward(self, x: Tensor) -> Tensor:
        modules, folded = list(self), None
        for module, following in zip(modules, [*modules[1:], None], strict=True):
            if module is folded:
                continue
            if torch.is_grad_enabled() or module.training or not folds(module, following):
                x = module(x)
            else:
                x, folded = module._conv_forward(x, *fold(module, following)), following
        return x
