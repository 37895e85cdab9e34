"""Predictions on CPUs: the same segmentor, prepared to take less time. Weights stay as they are, training too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from mmseg_volo.ops.folding import fold, folds
from mmseg_volo.ops.winograd import WinogradConv2d

SAME = 0.999  # of the pixels get one class in both precisions
BF16_FLAGS = {'avx512_bf16', 'amx_bf16', 'bf16'}  # the last one is ARM's


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself; one that does not takes many times as long as with float32."""
    try:
        flags = Path('/proc/cpuinfo').read_text().split()
    except OSError:
        return False
    return not BF16_FLAGS.isdisjoint(flags)


def prepare(model: nn.Module) -> None:
    """Makes a segmentor predict faster on a CPU.

    Tensors are laid out channels-last; without gradients, 3x3 convolutions go by Winograd's way, and in eval mode batch
    norms are folded into the convolutions before them. Where the processor multiplies bfloat16, the first window is
    predicted both ways, and from then on in bfloat16 if 99.9 % of its pixels get the same class.

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
    model.bf16 = None if has_bf16() else False  # None: not known yet


def logits(model: nn.Module, network: Callable[[], Tensor]) -> Tensor:
    """What `network` gives, logits (N, C, h, w), in the precision that `prepare` has foreseen for `model`."""
    if model.bf16 is False:
        return network()
    with torch.autocast('cpu', torch.bfloat16):
        fast = network().float()
    if model.bf16:
        return fast
    exact = network()
    model.bf16 = (fast.argmax(1) == exact.argmax(1)).float().mean().item() >= SAME
    return exact


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
