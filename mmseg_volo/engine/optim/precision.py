"""Choose mixed precision: by default if the GPU has bfloat16, and also on the CPU, where mmengine has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mmseg_volo.errors import UsageError
from mmseg_volo.models.cpu import has_bf16


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Autocast to bfloat16 on the CPU, where mmengine's `AmpOptimWrapper` refuses to run; bfloat16 needs no loss scale.

    The arguments are those of mmengine's `OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in bfloat16."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def gpu_has_bfloat16() -> bool:
    """Tell whether a GPU computes in bfloat16: AMD's, NVIDIA's from Ampere on (older ones emulate it)."""
    return torch.cuda.is_available() and bool(has_bf16('cuda'))


def amp_options() -> dict[str, Any]:
    """Return the settings of `optim_wrapper` for `--amp`: bfloat16 if the device has it, else scaled float16."""
    if not torch.cuda.is_available():
        return dict(type='CpuAmpOptimWrapper')
    if gpu_has_bfloat16():  # has the range of float32, so gradients need no scale
        return dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
    return dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')


def set_precision(optim_wrapper: ConfigDict, amp: bool | None) -> None:
    """Decide the precision of a training's forward pass, and write it into `optim_wrapper`.

    Args:
        optim_wrapper: of a config; changed in place.
        amp: `--amp` (True) or `--no-amp` (False) or neither (None): then bfloat16 on a GPU that has it, else float32,
            unless the config chooses AMP itself.

    Raises:
        UsageError: `amp` is given, but the config's wrapper is not one of mmengine's.
    """
    kind = optim_wrapper.get('type', 'OptimWrapper')
    if amp is None:
        if kind != 'OptimWrapper' or not gpu_has_bfloat16():
            return
    elif kind not in ('OptimWrapper', 'AmpOptimWrapper', 'CpuAmpOptimWrapper'):
        raise UsageError(
            f'--amp and --no-amp choose among wrappers, but the config has its own, {kind}: leave them out'
        )
    for key in ('dtype', 'loss_scale'):
        optim_wrapper.pop(key, None)
    optim_wrapper.update(dict(type='OptimWrapper') if amp is False else amp_options())


def precision_of(optim_wrapper: OptimWrapper) -> str:
    """Return the precision of the forward pass: 'float32', 'bfloat16' or 'float16'."""
    if isinstance(optim_wrapper, CpuAmpOptimWrapper):
        return 'bfloat16'
    if isinstance(optim_wrapper, AmpOptimWrapper):
        return str(optim_wrapper.cast_dtype or torch.float16).removeprefix('torch.')
    return 'float32'
