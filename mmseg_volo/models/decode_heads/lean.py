"""mmseg's UPerHead and SegformerHead with the same weights and results, in less time and memory.

They mix the channels of coarse maps before these are enlarged (`ops.resized_conv`) instead of convolving what has been
enlarged and concatenated: of UPerNet's largest convolution a third of the products is left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from mmseg.models.decode_heads import SegformerHead, UPerHead
from mmseg.models.utils import resize
from torch import Tensor

import mmseg_volo.models.losses  # noqa: F401, registers what `loss_decode` may name
from mmseg_volo.ops.folding import fold, folds
from mmseg_volo.ops.resized_conv import conv_of_resized
from mmseg_volo.ops.winograd import FASTER, WinogradConv2d, winograd_conv2d


def _sum(x: Tensor, y: Tensor) -> Tensor:
    """x + y, into x where no gradient needs it."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def _fuse(module: ConvModule, maps: Sequence[Tensor], align_corners: bool) -> Tensor:
    """`module` of the maps (B, C_i, h_i, w_i), all resized to the first one's size and concatenated."""
    conv, norm = module.conv, module.norm if module.with_norm else None
    weight, bias = conv.weight, conv.bias
    if not torch.is_grad_enabled() and folds(conv, norm) and not norm.training:
        (weight, bias), norm = fold(conv, norm), None
    how = (winograd_conv2d, FASTER) if isinstance(conv, WinogradConv2d) and not torch.is_grad_enabled() else ()
    x = conv_of_resized(maps, weight, maps[0].shape[2:], align_corners, *how)
    if bias is not None:
        x = _sum(x, bias[:, None, None])
    if norm is not None:
        x = norm(x)
    return module.activate(x) if module.with_activation else x


@MODELS.register_module()
class LeanUPerHead(UPerHead):
    """mmseg's UPerHead (UPerNet, arXiv 1807.10221): its arguments, weights and, but for rounding, results."""

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """(B, C, h, w), the last of the maps -> (B, channels, h, w)."""
        pooled = [scale(inputs[-1]) for scale in self.psp_modules]
        return _fuse(self.bottleneck, [inputs[-1], *pooled], self.align_corners)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        inputs = self._transform_inputs(inputs)
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs[:-1], strict=True)]
        laterals.append(self.psp_forward(inputs))
        for i in reversed(range(len(laterals) - 1)):
            above = resize(laterals[i + 1], laterals[i].shape[2:], mode='bilinear', align_corners=self.align_corners)
            laterals[i] = _sum(laterals[i], above)
        maps = [conv(x) for conv, x in zip(self.fpn_convs, laterals[:-1], strict=True)] + laterals[-1:]
        return _fuse(self.fpn_bottleneck, maps, self.align_corners)


@MODELS.register_module()
class LeanSegformerHead(SegformerHead):
    """mmseg's SegformerHead (arXiv 2105.15203): its arguments, weights and, but for rounding, results."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, h_i, w_i) -> logits (B, classes, h_0, w_0)."""
        if self.interpolate_mode != 'bilinear':
            return super().forward(inputs)
        maps = [conv(x) for conv, x in zip(self.convs, self._transform_inputs(inputs), strict=True)]
        return self.cls_seg(_fuse(self.fusion_conv, maps, self.align_corners))
