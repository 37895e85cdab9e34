"""Test at several scales and flips in the memory of one view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_volo.models.segmentors.strips import classes, probabilities


@MODELS.register_module(name=['StreamingTTA', 'RunningTTA'])
class StreamingTTA(BaseTTAModel):
    """Averages the probabilities of all views of an image (scales, flips), adding one view at a time.

    mmseg's `SegTTAModel` keeps the logits of all views until the last one is done: for ten views of 1024x2048 and 19
    classes 1.6 GB; here 0.3 GB, and inside `masks_only` 0.2 GB. It also takes the sigmoid of one-channel models twice.
    """

    def test_step(self, data: Mapping[str, Any]) -> list[SegDataSample]:
        """Predict a batch from all its views.

        Args:
            data: a collated batch: `inputs` and `data_samples`, each a list of one batch per view.

        Returns:
            The samples of the first view: `pred_sem_seg` is the most probable class (1, H, W), `seg_logits` the mean
            probabilities (classes, H, W) at the images' own size, unless the segmentor keeps no logits.
        """
        views = [dict(zip(data, batches, strict=True)) for batches in zip(*data.values(), strict=True)]
        if not getattr(self.module, 'keeps_logits', True):
            return self._masks(views)
        merged = self.module.test_step(views[0])
        sums = [self._probabilities(sample) for sample in merged]
        for view in views[1:]:
            for total, sample in zip(sums, self.module.test_step(view), strict=True):
                total += self._probabilities(sample)
        for total, sample in zip(sums, merged, strict=True):
            sample.set_data({'seg_logits': PixelData(data=total.div_(len(views)))})
        return self.merge_preds([[sample] for sample in merged])

    def merge_preds(self, data_samples_list: Sequence[Sequence[SegDataSample]]) -> list[SegDataSample]:
        """Set the masks of samples that hold mean probabilities, one per image."""
        merged = [samples[0] for samples in data_samples_list]
        for sample in merged:
            self._set_mask(sample, sample.seg_logits.data)
        return merged

    def _masks(self, views: Sequence[Mapping[str, Any]]) -> list[SegDataSample]:
        """Predict the same masks without logits; only one strip of a view exists at a time."""
        predictions = [self.module.strips(view) for view in views]
        merged = []
        for image in zip(*predictions, strict=True):
            total: Tensor | None = None
            for _, size, strips in image:
                for rows, logits in strips:
                    scores = probabilities(logits)
                    if total is None:
                        total = scores.new_zeros(len(scores), *size)
                    total[:, rows] += scores
            assert total is not None  # an image has rows
            sample = image[0][0]
            self._set_mask(sample, total.div_(len(views)))
            merged.append(sample)
        return merged

    def _set_mask(self, sample: SegDataSample, mean: Tensor) -> None:
        mask = classes(mean, getattr(self.module.decode_head, 'threshold', None))
        sample.set_data({'pred_sem_seg': PixelData(data=mask)})

    def _probabilities(self, sample: SegDataSample) -> Tensor:
        """Return probabilities (classes, H, W), and remove the logits from the sample so that they can be freed."""
        scores: Tensor = sample.seg_logits.data
        del sample.seg_logits
        return scores.softmax(0) if len(scores) > 1 else scores  # which are probabilities already in mmseg
