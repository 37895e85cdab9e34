"""Average the logits of overlapping windows, for the requested rows only."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_volo.models.segmentors.resize_rows import RowResize

WEIGHTS = ('uniform', 'gaussian')


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """Return where mmseg's windows start along one axis of an image; the last one ends with the image."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - crop), 0) for i in range(count)]


def window_weight(length: int, kind: str) -> Tensor:
    """Return the weights of a window's pixels along one axis, (length,); a pixel's weight is the product of both axes'.

    'gaussian' has a standard deviation of an eighth of the window, as nnU-Net's `compute_gaussian` has: pixels in the
    middle of a window, with context all around, count most.
    """
    if kind == 'uniform':
        return torch.ones(length)
    offset = torch.arange(length) - (length - 1) / 2
    return torch.exp(-0.5 * (offset / (length / 8)) ** 2)


def _trim_heap() -> None:
    """Return freed memory that glibc keeps to the system, before a map of logits is allocated beside it."""
    if sys.platform == 'linux' and (trim := getattr(ctypes.CDLL(None), 'malloc_trim', None)):
        trim(0)


class LazyImage:
    """An image that is normalised and padded window by window, and so never exists in float32 as a whole.

    Args:
        image: (3, h, w), of any dtype that `normalise` takes.
        size: (H, W) after padding at the bottom and the right.
        normalise: pixels (3, n, m) -> float32 of the same shape.
        pad_value: of the padding, after normalisation.
    """

    def __init__(
        self, image: Tensor, size: Sequence[int], normalise: Callable[[Tensor], Tensor], pad_value: float = 0.0
    ):
        self.image = image
        self.size = (int(size[0]), int(size[1]))
        self.normalise = normalise
        self.pad_value = pad_value

    def cut(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return the window (3, height, width) whose first pixel is (top, left)."""
        crop = self.normalise(self.image[:, top : top + height, left : left + width])
        padding = (0, width - crop.shape[2], 0, height - crop.shape[1])
        return F.pad(crop, padding, value=self.pad_value) if any(padding) else crop


class SlidingWindowMean:
    """Weighted mean of the logits of all windows that contain a pixel, for any rows, from top to bottom.

    Logits of windows are kept at the head's resolution (stride 4 or more) while their rows are needed, and enlarged a
    few rows at a time. So memory grows with the image's width, but not its height, and rows are added while they are
    still in the cache. Sums run in mmseg's order.

    Args:
        network: crops (B, 3, h, w) -> logits (B, C, h', w') of any size, which are resized bilinearly to (h, w).
        image: what the windows are cut from.
        crop: (height, width) of a window; a smaller image is one window of its own size.
        stride: (vertical, horizontal), at most the crop.
        batch: windows per call of the network.
        weight: one of WEIGHTS.
        align_corners: how logits are resized to the window.
        device: where logits are kept and added up; the network's if None.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        image: LazyImage,
        crop: Sequence[int],
        stride: Sequence[int],
        batch: int = 1,
        weight: str = 'uniform',
        align_corners: bool = False,
        device: torch.device | str | None = None,
    ):
        self.network, self.image, self.batch = network, image, batch
        self.align_corners = align_corners
        self.device = torch.device(image.image.device if device is None else device)
        self.window = (min(crop[0], image.size[0]), min(crop[1], image.size[1]))
        axes = [window_starts(n, c, s) for n, c, s in zip(image.size, crop, stride, strict=True)]
        self.tops, self.lefts = axes
        weights = [window_weight(n, weight).to(self.device) for n in self.window]
        self._weight = None if weight == 'uniform' else weights[0][:, None] * weights[1]
        self._sums = [torch.zeros(n, device=self.device) for n in image.size]
        for starts, weight_along, total in zip(axes, weights, self._sums, strict=True):
            for start in starts:
                total[start : start + len(weight_along)] += weight_along
        self._live: list[tuple[int, int, Tensor]] = []  # (top, left, logits) of windows still needed
        self._next = 0  # the first row of windows that is not computed yet
        self._enlarge: RowResize | None = None

    @torch.no_grad()
    def rows(self, top: int, bottom: int) -> Tensor:
        """Return the mean logits (C, bottom - top, W), float32, read-only.

        `top` must not decrease from call to call: windows above it are dropped.
        """
        self._run(top, bottom)
        if len(self.tops) == len(self.lefts) == 1:
            return self._rows_of(self._live[0][2], top, bottom)
        height, width = self.window
        total = torch.zeros(len(self._live[0][2]), bottom - top, self.image.size[1], device=self.device)
        for y, x, logits in self._live:
            start, stop = max(top - y, 0), min(bottom - y, height)
            if start < stop:
                window = total[:, start + y - top : stop + y - top, x : x + width]
                rows = self._rows_of(logits, start, stop)
                if self._weight is None:
                    window.add_(rows)
                else:
                    window.addcmul_(rows, self._weight[start:stop])
        return total.div_(self._sums[0][top:bottom, None] * self._sums[1])

    def _rows_of(self, logits: Tensor, top: int, bottom: int) -> Tensor:
        assert self._enlarge is not None  # set by the first `_run`
        first, last = self._enlarge.span(top, bottom)
        return self._enlarge(logits[:, first:last], top, bottom)

    def _run(self, top: int, bottom: int) -> None:
        """Drop windows that end above `top`, and run the network on new ones that start above `bottom`."""
        height, width = self.window
        before = self._next, len(self._live)
        self._live = [window for window in self._live if window[0] + height > top]
        while self._next < len(self.tops) and self.tops[self._next] < bottom:
            y = self.tops[self._next]
            for i in range(0, len(self.lefts), self.batch):
                lefts = self.lefts[i : i + self.batch]
                crops = torch.stack([self.image.cut(y, x, height, width) for x in lefts])
                batch = self.network(crops).to(self.device, torch.float32)
                self._live += [(y, x, logits) for x, logits in zip(lefts, batch, strict=True)]
            self._next += 1
        if len(self.tops) > 1 and self.device.type == 'cpu' and before != (self._next, len(self._live)):
            _trim_heap()
        if self._enlarge is None:
            channels, *size = self._live[0][2].shape
            self._enlarge = RowResize(size, self.window, channels, self.align_corners, self.device)
