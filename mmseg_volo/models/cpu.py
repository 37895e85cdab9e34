"""Predictions in less time: the same segmentor, prepared for CPUs, or in bfloat16. Weights stay as they are."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from mmseg_volo.errors import UsageError
from mmseg_volo.models.backbones.base import Backbone
from mmseg_volo.ops.folding import fold, folds
from mmseg_volo.ops.winograd import WinogradConv2d

HEADS = ('FCNHead', 'LeanSegformerHead', 'LeanUPerHead', 'SegformerHead', 'UPerHead')
BF16_FLAGS = {'avx512_bf16', 'amx_bf16', 'bf16'}  # the last one is ARM's


def has_bf16(device: torch.device | str = 'cpu') -> bool | None:
    """Whether a device multiplies bfloat16 itself; one that does not takes longer than with float32. None: unknown."""
    device = torch.device(device)
    if device.type == 'cuda':
        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    try:
        flags = Path('/proc/cpuinfo').read_text().split()
    except OSError:
        return None
    return not BF16_FLAGS.isdisjoint(flags)


def can_optimize(model: nn.Module) -> bool:
    """Whether `optimize_for_cpu` was tried with all parts of a segmentor; some heads want maps that lie row by row."""
    heads = [getattr(model, name, None) for name in ('decode_head', 'auxiliary_head')]
    parts = [part for head in heads for part in (head if isinstance(head, nn.ModuleList) else [head])]
    known = all(part is None or type(part).__name__ in HEADS for part in parts)
    return known and isinstance(getattr(model, 'backbone', None), Backbone)


def optimize_for_cpu(model: nn.Module) -> None:
    """Makes a segmentor predict faster on a CPU.

    Tensors are laid out channels-last; without gradients, 3x3 convolutions go by Winograd's way, and in eval mode batch
    norms are folded into the convolutions before them.

    Modules change their class, not what they hold.
    """
    for module in model.modules():
        if type(module) is ConvModule and _can_fold(module):
            module.__class__ = FoldedConvModule
        elif type(module) is nn.Sequential and any(folds(*pair) for pair in zip(module, module[1:], strict=False)):
            module.__class__ = FoldedSequential
        elif WinogradConv2d.does(module):
            module.__class__ = WinogradConv2d
    model.to(memory_format=torch.channels_last)
    model.optimized = True


def use_bf16(model: nn.Module) -> None:
    """Makes a segmentor predict under bfloat16 autocast: every image, on whatever device it is.

    Raises:
        UsageError: its device is neither a CPU nor a GPU of CUDA or ROCm.
    """
    device = next(model.parameters()).device
    if device.type not in ('cpu', 'cuda'):
        raise UsageError(f'bf16 is for CPUs and CUDA devices, got device {str(device)!r}: leave it out')
    if has_bf16(device) is False:
        what = 'processor' if device.type == 'cpu' else 'GPU'
        warnings.warn(
            f'this {what} has no units for bfloat16: with bf16 predictions take longer than without', stacklevel=3
        )
    model.bf16 = True


def autocast(model: nn.Module) -> AbstractContextManager:
    """The precision in which a model from `load` predicts."""
    if not getattr(model, 'bf16', False):
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


def prediction_settings(model: nn.Module) -> dict[str, Any]:
    """What of the above was chosen for a model, as masks depend on it; one from elsewhere than `load` has nothing."""
    return dict(
        precision='bfloat16' if getattr(model, 'bf16', False) else 'float32',
        optimization=getattr(model, 'optimized', False),
    )


def _can_fold(module: ConvModule) -> bool:
    plain = module.order == ('conv', 'norm', 'act') and not module.with_explicit_padding and module.with_norm
    return plain and folds(module.conv, module.norm)


class FoldedConvModule(ConvModule):
    """mmcv's ConvModule; in eval mode and without gradients its batch norm is folded into its convolution."""

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        if torch.is_grad_enabled() or self.norm.training or not norm:
            return super().forward(x, activate, norm)
        x = self.conv._conv_forward(x, *fold(self.conv, self.norm))
        if activate and self.with_activation:
            return x.relu_() if type(self.activate) is nn.ReLU else self.activate(x)
        return x


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
