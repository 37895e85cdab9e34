"""Define mmseg's UPerHead and SegformerHead with the same weights and results, in less time and memory.

They mix the channels of coarse maps before enlarging them (`ops.resized_conv`), where mmseg convolves enlarged and
concatenated maps. UPerNet's largest convolution needs a third of the products.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from mmseg.models.decode_heads import SegformerHead, UPerHead
from mmseg.models.utils import resize
from torch import Tensor

import mmseg_volo.models.losses  # noqa: F401, registers the losses that `loss_decode` may name
from mmseg_volo.ops.resized_conv import conv_of_resized
from mmseg_volo.ops.winograd import FASTER, WinogradConv2d, winograd_conv2d


def _sum(x: Tensor, y: Tensor) -> Tensor:
    """Return x + y, computed in place if no gradient is needed."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def _fuse(module: ConvModule, maps: Sequence[Tensor], align_corners: bool) -> Tensor:
    """Apply `module` to the maps (B, C_i, h_i, w_i), all resized to the first one's size and concatenated."""
    conv = module.conv
    how = (winograd_conv2d, FASTER) if isinstance(conv, WinogradConv2d) and not torch.is_grad_enabled() else ()
    x = conv_of_resized(maps, conv.weight, maps[0].shape[2:], align_corners, *how)
    if conv.bias is not None:
        x = _sum(x, conv.bias[:, None, None])
    if module.with_norm:
        x = module.norm(x)
    return module.activate(x) if module.with_activation else x


@MODELS.register_module()
class LeanUPerHead(UPerHead):
    """mmseg's UPerHead (UPerNet, arXiv 1807.10221): with its arguments, weights and, up to rounding, results."""

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Pool the last map (B, C, h, w) at several scales and fuse: (B, channels, h, w)."""
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
    """mmseg's SegformerHead (arXiv 2105.15203): with its arguments, weights and, up to rounding, results."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute logits (B, classes, h_0, w_0) of maps (B, C_i, h_i, w_i)."""
        if self.interpolate_mode != 'bilinear':
            logits: Tensor = super().forward(inputs)
            return logits
        maps = [conv(x) for conv, x in zip(self.convs, self._transform_inputs(inputs), strict=True)]
        logits = self.cls_seg(_fuse(self.fusion_conv, maps, self.align_corners))
        return logits
