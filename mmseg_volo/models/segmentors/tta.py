"""Multi-scale and flip test in the memory of one view."""

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
    classes 1.6 GB, here 0.3 GB, and inside `masks_only` 0.2 GB. It also takes the sigmoid of one-channel models twice.
    """

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Predicts a batch of which every view is given.

        Args:
            data: a collated batch: `inputs` and `data_samples`, each a list of one batch per view.

        Returns:
            The samples of the first view, `pred_sem_seg` holding the most probable class (1, H, W) and `seg_logits`
            mean probabilities (classes, H, W) at the images' own size, unless the segmentor keeps no logits.
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
        """Takes the class of the mean probabilities, which `test_step` has made one sample per image of."""
        merged = [samples[0] for samples in data_samples_list]
        for sample in merged:
            self._set_mask(sample, sample.seg_logits.data)
        return merged

    def _masks(self, views: Sequence[Mapping[str, Any]]) -> list[SegDataSample]:
        """The same classes; of a view, only a band of rows exists at a time."""
        opened = [self.module.bands(view) for view in views]
        merged = []
        for image in zip(*opened, strict=True):
            total = None
            for _, size, parts in image:
                for rows, logits in parts:
                    chances = probabilities(logits)
                    if total is None:
                        total = chances.new_zeros(len(chances), *size)
                    total[:, rows] += chances
            sample = image[0][0]
            self._set_mask(sample, total.div_(len(views)))
            merged.append(sample)
        return merged

    def _set_mask(self, sample: SegDataSample, mean: Tensor) -> None:
        found = classes(mean, getattr(self.module.decode_head, 'threshold', None))
        sample.set_data({'pred_sem_seg': PixelData(data=found)})

    def _probabilities(self, sample: SegDataSample) -> Tensor:
        """(classes, H, W), taken out of the sample so that its logits can be freed."""
        scores = sample.seg_logits.data
        del sample.seg_logits
        return scores.softmax(0) if len(scores) > 1 else scores  # mmseg has made these probabilities already
