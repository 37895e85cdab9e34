"""Turn mean logits into results of the image's own size, strip by strip."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmseg_volo.errors import UsageError
from mmseg_volo.models.segmentors.resize_rows import RowResize
from mmseg_volo.models.segmentors.windows import SlidingWindowMean

# bytes of a strip, all classes together: on CPUs it fits in the cache; GPUs are faster with fewer, larger kernels
STRIP_BYTES = {'cpu': 3 << 20}
GPU_STRIP_BYTES = 256 << 20


@dataclass(frozen=True)
class Geometry:
    """How the network's input was made from the image: resized, then flipped, then padded.

    Args:
        size: (H, W) of the image itself.
        padding: (left, right, top, bottom).
        flip: 'horizontal', 'vertical' or none.
    """

    size: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    flip: str | None = None

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Geometry:
        """Read a sample's `metainfo`, as mmseg's `postprocess_result` does."""
        height, width = meta['ori_shape'][:2]
        padding = meta.get('img_padding_size', meta.get('padding_size')) or (0, 0, 0, 0)
        flip = meta.get('flip_direction') if meta.get('flip') else None
        if meta.get('flip') and flip not in ('horizontal', 'vertical'):
            raise UsageError(f"flip_direction must be 'horizontal' or 'vertical', got {flip!r}")
        left, right, above, below = (int(n) for n in padding)
        return cls((int(height), int(width)), (left, right, above, below), flip)


def rows_per_strip(channels: int, width: int, device: torch.device) -> int:
    """Return the number of rows of a strip in float32."""
    return max(STRIP_BYTES.get(device.type, GPU_STRIP_BYTES) // (4 * channels * width), 1)


def strips(
    mean: SlidingWindowMean, geometry: Geometry, channels: int, align_corners: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Crop padding, flip back and resize to the image's own size, as mmseg's `postprocess_result` does.

    Args:
        channels: of the logits.
        align_corners: how logits are resized.

    Yields:
        A slice of the image's rows, each once, and their logits (channels, rows, W), which are read-only.
    """
    left, right, above, below = geometry.padding
    height, width = mean.image.size[0] - above - below, mean.image.size[1] - left - right
    resize = RowResize((height, width), geometry.size, channels, align_corners, mean.device)
    count = rows_per_strip(channels, max(mean.image.size[1], geometry.size[1]), mean.device)
    upside_down = geometry.flip == 'vertical'
    last = geometry.size[0]
    for start in range(0, last, count):
        # windows are computed from top to bottom: an image flipped upside down is finished from its bottom
        stop = min(start + count, last)
        top, bottom = (last - stop, last - start) if upside_down else (start, stop)
        first, end = resize.span(top, bottom)
        if upside_down:
            rows = mean.rows(above + height - end, above + height - first).flip(1)
        else:
            rows = mean.rows(above + first, above + end)
        rows = rows[:, :, left : left + width]
        if geometry.flip == 'horizontal':
            rows = rows.flip(2)
        yield slice(top, bottom), resize(rows, top, bottom)


def probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities (C, ...) of the classes; of one channel, that of the foreground."""
    return logits.softmax(0) if len(logits) > 1 else logits.sigmoid()


def classes(scores: Tensor, threshold: float | None) -> Tensor:
    """Return class indices (1, H, W) of logits or probabilities (C, H, W), float32; the first one of ties.

    Of one channel's probability: 1.0 above the threshold, else 0.0.
    """
    if len(scores) == 1:
        assert threshold is not None  # mmseg's heads of one channel have one
        return (scores > threshold).to(scores)
    if scores.device.type != 'cpu':
        return scores.argmax(0, keepdim=True)
    # on CPUs torch's argmax over the first axis takes ten times as long as these passes
    backwards = torch.arange(len(scores), 0, -1, dtype=scores.dtype)[:, None, None]
    indices = []
    for strip in scores.split(rows_per_strip(len(scores), scores.shape[2], scores.device), dim=1):
        marks = torch.eq(strip, strip.amax(0), out=torch.empty_like(strip)).mul_(backwards)
        indices.append((len(scores) - marks.amax(0, keepdim=True)).long())
    return torch.cat(indices, 1).clamp_(max=len(scores) - 1)  # if a score is NaN, no class is the largest


def read_strip(logits: Tensor, wanted: Collection[str], threshold: float | None) -> dict[str, Tensor]:
    """Compute results from logits (C, n, W), by their names in mmseg's samples.

    Args:
        wanted: besides `pred_sem_seg`: `seg_logits` (as in mmseg, of one channel its probability), and OPTIONAL_MAPS.
        threshold: for one channel's probability.
    """
    scores = logits if len(logits) > 1 else logits.sigmoid()
    results = dict(pred_sem_seg=classes(scores, threshold))
    if 'seg_logits' in wanted:
        results['seg_logits'] = scores
    if set(wanted) - {'seg_logits'}:
        probability = probabilities(logits)
        of_classes = probability if len(probability) > 1 else torch.cat([1 - probability, probability])
        if 'probability' in wanted:
            results['probability'] = probability
        if 'confidence' in wanted:
            results['confidence'] = of_classes.gather(0, results['pred_sem_seg'].long())
        if 'entropy' in wanted:
            results['entropy'] = torch.special.entr(of_classes).sum(0, keepdim=True)
    return results


def assemble(strips: Iterable[tuple[slice, Mapping[str, Tensor]]], size: Sequence[int]) -> dict[str, Tensor]:
    """Join the results of `read_strip` for all strips of an image, each result (channels, H, W)."""
    whole: dict[str, Tensor] = {}
    for rows, results in strips:
        for name, values in results.items():
            if name not in whole:
                whole[name] = values.new_empty(len(values), *size)
            whole[name][:, rows] = values
    return whole
