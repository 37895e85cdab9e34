"""Mixed precision where mmengine has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """bfloat16 autocast on the CPU, where mmengine's `AmpOptimWrapper` refuses to run; bfloat16 needs no loss scale.

    The arguments are those of mmengine's `OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The forward pass runs in here."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def amp_options() -> dict[str, str]:
    """What `--amp` writes into `optim_wrapper`: bfloat16 where the device has it, else float16 with a loss scale."""
    if not torch.cuda.is_available():
        return dict(type='CpuAmpOptimWrapper')
    if torch.cuda.is_bf16_supported():
        return dict(type='AmpOptimWrapper', dtype='bfloat16')
    return dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
