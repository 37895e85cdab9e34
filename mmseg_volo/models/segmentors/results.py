"""What any segmentor says about an image, row by row where it can."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmseg_volo.models import cpu as processor
from mmseg_volo.models.segmentors.streaming import StreamingEncoderDecoder
from mmseg_volo.models.segmentors.strips import read_strip
from mmseg_volo.models.segmentors.test_cfg import PredictionOptions


def results(
    model: nn.Module,
    batch: Mapping[str, Any],
    wanted: Collection[str] = (),
    options: PredictionOptions | None = None,
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Predicts one image.

    Args:
        model: from `mmseg_volo.load`.
        batch: a collated batch of one image.
        wanted: any of `options.MAPS`, beside `pred_sem_seg`.
        options: instead of what a StreamingEncoderDecoder's `test_cfg` says.

    Yields:
        Rows of the image, from top to bottom, and for each name its values (channels, rows, W). A
        StreamingEncoderDecoder gives few rows at a time, others all at once.
    """
    threshold = getattr(getattr(model, 'decode_head', None), 'threshold', None)
    if isinstance(model, StreamingEncoderDecoder):
        ((_, _, parts),) = model.bands(batch, options)
        for rows, logits in parts:
            yield rows, read_strip(logits, wanted, threshold)
        return
    with processor.autocast(model):
        (sample,) = model.test_step(batch)
    mask, scores = sample.pred_sem_seg.data, sample.seg_logits.data.float()
    logits = scores if len(scores) > 1 else torch.logit(scores.double())  # mmseg has made probabilities of one channel
    yield slice(0, mask.shape[1]), {**read_strip(logits, wanted, threshold), 'pred_sem_seg': mask}
