"""Compute the cross-entropy with both class weights and ignored pixels, for which mmseg's loss raises."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor


@MODELS.register_module()
class WeightedCrossEntropy(CrossEntropyLoss):
    """Mean over pixels that are not ignored, weighted by their classes' weights, as torch defines it.

    mmseg 1.2.2 indexes the weights by the ignored label, and onedl's 1.4.2 by a mask of another shape; both raise. The
    arguments are those of mmseg's `CrossEntropyLoss`; `class_weight` is required.
    """

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        ignore_index: int = 255,
    ) -> Tensor:
        """Compute the loss, a scalar; 0 if all pixels are ignored.

        Args:
            cls_score: (B, classes, H, W) logits.
            label: (B, H, W), class indices or `ignore_index`.
            weight: (B, H, W), an extra factor per pixel, e.g. from a pixel sampler.
            avg_factor, reduction_override: of mmseg's signature; not used.
        """
        class_weight = cls_score.new_tensor(self.class_weight)
        each = F.cross_entropy(cls_score, label, class_weight, ignore_index=ignore_index, reduction='none')
        if weight is not None:
            each = each * weight
        valid = label != ignore_index
        total = class_weight[label.where(valid, 0)].where(valid, 0).sum()
        loss: Tensor = self.loss_weight * each.sum() / total.clamp(min=torch.finfo(total.dtype).tiny)
        return loss
