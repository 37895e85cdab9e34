"""From mean logits to results of the image's own size, a band of rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmseg_volo.errors import UsageError
from mmseg_volo.models.segmentors.resize_rows import RowResize
from mmseg_volo.models.segmentors.windows import SlidingWindowMean

# what all classes of a band may take, in bytes: on CPUs it is to stay in the cache, GPUs want fewer, larger kernels
STRIP_BYTES = {'cpu': 3 << 20}
GPU_STRIP_BYTES = 256 << 20


@dataclass(frozen=True)
class Geometry:
    """How the picture that the network sees comes from the image: resized, then flipped, then padded.

    Args:
        size: (H, W) of the image itself.
        padding: (left, right, top, bottom) of what was put around it.
        flip: 'horizontal', 'vertical' or none.
    """

    size: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    flip: str | None = None

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Geometry:
        """Reads a sample's `metainfo`, as mmseg's `postprocess_result` does."""
        height, width = meta['ori_shape'][:2]
        padding = meta.get('img_padding_size', meta.get('padding_size')) or (0, 0, 0, 0)
        flip = meta.get('flip_direction') if meta.get('flip') else None
        if meta.get('flip') and flip not in ('horizontal', 'vertical'):
            raise UsageError(f"flip_direction must be 'horizontal' or 'vertical', got {flip!r}")
        return cls((int(height), int(width)), tuple(int(n) for n in padding), flip)


def rows_per_strip(channels: int, width: int, device: torch.device) -> int:
    """How many rows of float32 are worked on at once."""
    return max(STRIP_BYTES.get(device.type, GPU_STRIP_BYTES) // (4 * channels * width), 1)


def strips(
    mean: SlidingWindowMean, geometry: Geometry, channels: int, align_corners: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Takes padding away, flips back and resizes to the image's own size, as mmseg's `postprocess_result` does.

    Args:
        channels: of the logits.
        align_corners: how logits are resized.

    Yields:
        Rows of the image, each once, and their logits (channels, rows, W), for reading only.
    """
    left, right, above, below = geometry.padding
    height, width = mean.image.size[0] - above - below, mean.image.size[1] - left - right
    resize = RowResize((height, width), geometry.size, channels, align_corners, mean.device)
    count = rows_per_strip(channels, max(mean.image.size[1], geometry.size[1]), mean.device)
    upside_down = geometry.flip == 'vertical'
    last = geometry.size[0]
    for start in range(0, last, count):
        # windows pass from top to bottom, so an image that was turned upside down is finished from its bottom
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
    """(C, ...) of the classes; of one channel, that of the foreground."""
    return logits.softmax(0) if len(logits) > 1 else logits.sigmoid()


def classes(scores: Tensor, threshold: float | None) -> Tensor:
    """(1, H, W) class indices of logits or probabilities (C, H, W), float32; of ties the first.

    Of one channel's probability: 1.0 above the threshold, else 0.0.
    """
    if len(scores) == 1:
        return (scores > threshold).to(scores)
    if scores.device.type != 'cpu':
        return scores.argmax(0, keepdim=True)
    # on CPUs torch's argmax over the first axis takes ten times as long as these passes
    backwards = torch.arange(len(scores), 0, -1, dtype=scores.dtype)[:, None, None]
    found = []
    for part in scores.split(rows_per_strip(len(scores), scores.shape[2], scores.device), dim=1):
        marks = torch.eq(part, part.amax(0), out=torch.empty_like(part)).mul_(backwards)
        found.append((len(scores) - marks.amax(0, keepdim=True)).long())
    return torch.cat(found, 1).clamp_(max=len(scores) - 1)  # where a score is NaN none is the largest


def read_strip(logits: Tensor, wanted: Collection[str], threshold: float | None) -> dict[str, Tensor]:
    """The results that logits (C, n, W) lead to, by their names in mmseg's samples.

    Args:
        wanted: which beside `pred_sem_seg`: `seg_logits` (as in mmseg, of one channel its probability), and MAPS.
        threshold: of one channel's probability.
    """
    scores = logits if len(logits) > 1 else logits.sigmoid()
    found = dict(pred_sem_seg=classes(scores, threshold))
    if 'seg_logits' in wanted:
        found['seg_logits'] = scores
    if set(wanted) - {'seg_logits'}:
        chances = probabilities(logits)
        both = chances if len(chances) > 1 else torch.cat([1 - chances, chances])
        maps = dict(probability=chances)
        if 'confidence' in wanted:
            maps['confidence'] = both.gather(0, found['pred_sem_seg'].long())
        if 'entropy' in wanted:
            maps['entropy'] = torch.special.entr(both).sum(0, keepdim=True)
        found |= {name: values for name, values in maps.items() if name in wanted}
    return found


def assemble(parts: Iterable[tuple[slice, Mapping[str, Tensor]]], size: Sequence[int]) -> dict[str, Tensor]:
    """Puts together what is `read_strip` from the bands of an image, each (channels, H, W)."""
    whole: dict[str, Tensor] = {}
    for rows, found in parts:
        for name, values in found.items():
            if name not in whole:
                whole[name] = values.new_empty(len(values), *size)
            whole[name][:, rows] = values
    return whole
