"""Prepare a segmentor to predict faster: on CPUs, or in bfloat16. Its weights do not change."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from mmseg_volo.errors import UsageError
from mmseg_volo.models.backbones.base import Backbone
from mmseg_volo.ops.winograd import WinogradConv2d

HEADS = ('FCNHead', 'LeanSegformerHead', 'LeanUPerHead', 'SegformerHead', 'UPerHead')
BF16_FLAGS = {'avx512_bf16', 'amx_bf16', 'bf16'}  # the last one is ARM's


def has_bf16(device: torch.device | str = 'cpu') -> bool | None:
    """Whether a device has bfloat16 units, without which bfloat16 is slower than float32; None if unknown."""
    device = torch.device(device)
    if device.type == 'cuda':
        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    try:
        flags = Path('/proc/cpuinfo').read_text().split()
    except OSError:
        return None
    return not BF16_FLAGS.isdisjoint(flags)


def can_optimize(model: nn.Module) -> bool:
    """Whether a segmentor's backbone and heads are tested with `optimize_for_cpu`: some heads need contiguous maps."""
    heads = [getattr(model, name, None) for name in ('decode_head', 'auxiliary_head')]
    single = [head for entry in heads for head in (entry if isinstance(entry, nn.ModuleList) else [entry])]
    known = all(head is None or type(head).__name__ in HEADS for head in single)
    return known and isinstance(getattr(model, 'backbone', None), Backbone)


def optimize_for_cpu(model: nn.Module) -> None:
    """Make a segmentor predict faster on a CPU.

    Tensors are channels-last; without gradients, large 3x3 convolutions are computed by Winograd's algorithm.
    """
    for module in model.modules():
        if WinogradConv2d.does(module):
            module.__class__ = WinogradConv2d  # the same attributes
    model.to(memory_format=torch.channels_last)
    cast(Any, model).optimized = True


def use_bf16(model: nn.Module) -> None:
    """Make a segmentor predict under bfloat16 autocast.

    Raises:
        UsageError: the device is neither a CPU nor a CUDA or ROCm GPU.
    """
    device = next(model.parameters()).device
    if device.type not in ('cpu', 'cuda'):
        raise UsageError(f'bf16 is for CPUs and CUDA devices, got device {str(device)!r}: leave it out')
    if has_bf16(device) is False:
        kind = 'processor' if device.type == 'cpu' else 'GPU'
        warnings.warn(
            f'this {kind} has no units for bfloat16: predictions are slower with bf16 than without', stacklevel=3
        )
    cast(Any, model).bf16 = True


def autocast(model: nn.Module) -> AbstractContextManager[Any]:
    """Return the context in which a model from `load` predicts: autocast, if it was loaded with `bf16=True`."""
    if not getattr(model, 'bf16', False):
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


def prediction_settings(model: nn.Module) -> dict[str, Any]:
    """Return the precision and optimisation with which a model predicts, since masks depend on them."""
    return dict(
        precision='bfloat16' if getattr(model, 'bf16', False) else 'float32',
        optimization=getattr(model, 'optimized', False),
    )
