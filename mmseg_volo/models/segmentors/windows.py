"""The mean logits of overlapping windows, of which only the rows that are asked for ever exist."""

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
    """Where mmseg's windows begin along one axis of an image; the last one ends with it."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - crop), 0) for i in range(count)]


def window_weight(length: int, kind: str) -> Tensor:
    """The weight of a window's pixels along one axis, (length,); a pixel's weight is the product of both axes'.

    'gaussian' has a standard deviation of an eighth of the window, as nnU-Net's `compute_gaussian` has it: what
    lies in the middle of a window, with context all around it, counts most.
    """
    if kind == 'uniform':
        return torch.ones(length)
    place = torch.arange(length) - (length - 1) / 2
    return torch.exp(-0.5 * (place / (length / 8)) ** 2)


def _give_back() -> None:
    """Hands back what the network has freed and glibc keeps, before a map of logits is filled beside it."""
    if sys.platform == 'linux' and (trim := getattr(ctypes.CDLL(None), 'malloc_trim', None)):
        trim(0)


class LazyImage:
    """An image that is normalised and padded window by window, so that it never exists in float32 as a whole.

    Args:
        image: (3, h, w), of any type that `normalise` takes.
        size: (H, W) to which it is padded at the bottom and on the right.
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
        """The window (3, height, width) whose first pixel is (top, left)."""
        crop = self.normalise(self.image[:, top : top + height, left : left + width])
        padding = (0, width - crop.shape[2], 0, height - crop.shape[1])
        return F.pad(crop, padding, value=self.pad_value) if any(padding) else crop


class SlidingWindowMean:
    """The weighted mean of the logits of all windows that see a pixel, for any rows, from top to bottom.

    Windows are kept as small as the head made them (its stride is 4 or more), from when their rows are needed first to
    when they are passed; they are enlarged a few rows at a time. So memory depends on the image's width, but not on its
    height, and what is added has just been made and is still in the cache. Sums run in mmseg's order.

    Args:
        network: crops (B, 3, h, w) -> logits (B, C, h', w'), of any size, to be resized bilinearly to (h, w).
        image: what the windows are cut from.
        crop: (height, width) of a window; an image smaller than that is one window of its own size.
        stride: (vertical, horizontal), at most the crop.
        batch: windows per call of the network.
        weight: one of WEIGHTS.
        align_corners: how logits are resized to the window.
        device: where the logits are kept and added up; the network's if None.
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
        for starts, one, total in zip(axes, weights, self._sums, strict=True):
            for start in starts:
                total[start : start + len(one)] += one
        self._live: list[tuple[int, int, Tensor]] = []  # (top, left, logits) of the windows that are still needed
        self._next = 0  # the first row of windows that was not run
        self._enlarge: RowResize | None = None

    @torch.no_grad()
    def rows(self, top: int, bottom: int) -> Tensor:
        """The mean logits (C, bottom - top, W), float32, for reading only.

        `top` never falls from call to call: what lies above is forgotten.
        """
        self._run(top, bottom)
        if len(self.tops) == len(self.lefts) == 1:
            return self._rows_of(self._live[0][2], top, bottom)
        height, width = self.window
        total = torch.zeros(len(self._live[0][2]), bottom - top, self.image.size[1], device=self.device)
        for y, x, logits in self._live:
            start, stop = max(top - y, 0), min(bottom - y, height)
            if start < stop:
                place = total[:, start + y - top : stop + y - top, x : x + width]
                rows = self._rows_of(logits, start, stop)
                if self._weight is None:
                    place.add_(rows)
                else:
                    place.addcmul_(rows, self._weight[start:stop])
        return total.div_(self._sums[0][top:bottom, None] * self._sums[1])

    def _rows_of(self, logits: Tensor, top: int, bottom: int) -> Tensor:
        first, last = self._enlarge.span(top, bottom)
        return self._enlarge(logits[:, first:last], top, bottom)

    def _run(self, top: int, bottom: int) -> None:
        """Forgets the windows above `top` and runs the network on those that begin above `bottom`."""
        height, width = self.window
        before = self._next, len(self._live)
        self._live = [window for window in self._live if window[0] + height > top]
        while self._next < len(self.tops) and self.tops[self._next] < bottom:
            y = self.tops[self._next]
            for i in range(0, len(self.lefts), self.batch):
                lefts = self.lefts[i : i + self.batch]
                crops = torch.stack([self.image.cut(y, x, height, width) for x in lefts])
                found = self.network(crops).to(self.device, torch.float32)
                self._live += [(y, x, one) for x, one in zip(lefts, found, strict=True)]
            self._next += 1
        if len(self.tops) > 1 and self.device.type == 'cpu' and before != (self._next, len(self._live)):
            _give_back()
        if self._enlarge is None:
            channels, *size = self._live[0][2].shape
            self._enlarge = RowResize(size, self.window, channels, self.align_corners, self.device)
