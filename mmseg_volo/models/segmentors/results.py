"""Predict one image with any segmentor, strip by strip where possible."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmseg_volo.models.cpu import autocast
from mmseg_volo.models.segmentors.streaming import StreamingEncoderDecoder
from mmseg_volo.models.segmentors.strips import read_strip
from mmseg_volo.models.segmentors.test_cfg import PredictionOptions


def results(
    model: nn.Module,
    batch: Mapping[str, Any],
    wanted: Collection[str] = (),
    options: PredictionOptions | None = None,
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Predict one image.

    Args:
        model: from `mmseg_volo.load`.
        batch: a collated batch of one image.
        wanted: which of `OPTIONAL_MAPS` to give besides `pred_sem_seg`.
        options: of a StreamingEncoderDecoder, instead of its `test_cfg`.

    Yields:
        A slice of the image's rows, and for each name its values (channels, rows, W). A StreamingEncoderDecoder yields
        strips of a few rows, other segmentors the whole image.
    """
    threshold = getattr(getattr(model, 'decode_head', None), 'threshold', None)
    if isinstance(model, StreamingEncoderDecoder):
        ((_, _, strips),) = model.strips(batch, options)
        for rows, logits in strips:
            yield rows, read_strip(logits, wanted, threshold)
        return
    with autocast(model):
        (sample,) = cast('BaseModel', model).test_step(batch)
    mask, scores = sample.pred_sem_seg.data, sample.seg_logits.data.float()
    logits = scores if len(scores) > 1 else torch.logit(scores.double())  # mmseg gives the probability of one channel
    yield slice(0, mask.shape[1]), {**read_strip(logits, wanted, threshold), 'pred_sem_seg': mask}
