"""Resize single rows of an image bilinearly, with the same result as resizing the whole image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def taps(
    in_rows: int, out_size: Sequence[int], channels: int, align_corners: bool, device: torch.device | str = 'cpu'
) -> tuple[Tensor, Tensor]:
    """Find the two neighbouring rows that torch's bilinear kernel mixes into each row of its result, and their weights.

    The weights are read off the kernel itself, which resizes three signals that are 1 on every third row. Weights
    computed here would differ by an ulp of the coordinate, 1e-4 of a row at row 2000, as some kernels fuse multiplying
    and adding. On CPUs torch (2.15) chooses between two kernels by the number of channels (1, up to 3, more) and by
    height + width of the result (up to 128, more); the signals are on the same side of these limits.

    Args:
        in_rows, channels: of the image.
        out_size: (height, width) of the result.

    Returns:
        The first of the two rows (height,), and the weights of it and of the next one (2, height).
    """
    out_rows, out_width = out_size
    row = torch.arange(out_rows, dtype=torch.float64)
    if align_corners:
        position = row * ((in_rows - 1) / max(out_rows - 1, 1))
    else:
        position = (row + 0.5) * (in_rows / out_rows) - 0.5
    near = position.round().long().clamp_(0, in_rows - 1).to(device)
    thirds = F.one_hot(torch.arange(in_rows, device=device) % 3, 3).T.float()
    signals = thirds[:, None, :, None].repeat(1, min(channels, 4), 1, 1)
    size = (out_rows, min(out_width, 128))
    resized = F.interpolate(signals, size=size, mode='bilinear', align_corners=align_corners)[:, 0, :, 0]
    before, here, after = (resized.gather(0, ((near + step) % 3)[None])[0] for step in (-1, 0, 1))
    mixed_with_before = before > 0
    weights = [torch.where(mixed_with_before, *pair) for pair in ((before, here), (here, after))]
    return near - mixed_with_before.long(), torch.stack(weights)


class RowResize:
    """Computes rows of `F.interpolate(image, out_size, mode='bilinear')` from the rows they depend on.

    Args:
        in_size, out_size: (height, width) of the whole image, and of the whole result.
        channels: of the image.
        align_corners: as in `F.interpolate`.
        device: of the rows to resize.
    """

    def __init__(
        self,
        in_size: Sequence[int],
        out_size: Sequence[int],
        channels: int,
        align_corners: bool,
        device: torch.device | str = 'cpu',
    ):
        self.in_height, self.out_height = in_size[0], out_size[0]
        self.in_width, self.out_width = in_size[1], out_size[1]
        self.align_corners = align_corners
        # twice as fast on CPUs; only where coordinates are exact in float32, as the kernels round differently
        powers = [self.in_width << n for n in range(1, 7)]
        self._columns_alone = torch.device(device).type == 'cpu' and not align_corners and self.out_width in powers
        if self.in_height != self.out_height:
            self._first, self._weights = taps(self.in_height, out_size, channels, align_corners, device)
            self._starts = self._first.tolist()  # read later without waiting for a GPU

    def span(self, top: int, bottom: int) -> tuple[int, int]:
        """Return the range of rows of the image that rows top to bottom of the result depend on."""
        if self.in_height == self.out_height:
            return top, bottom
        return self._starts[top], min(self._starts[bottom - 1] + 2, self.in_height)

    def __call__(self, rows: Tensor, top: int, bottom: int) -> Tensor:
        """Return rows top to bottom of the result, (C, bottom - top, width); `rows` itself if nothing changes.

        Args:
            rows: (C, rows of `span(top, bottom)`, width of the image), floating point.
        """
        if self.in_height != self.out_height:
            first = self._first[top:bottom] - self._starts[top]
            second = (first + 1).clamp_(max=rows.shape[1] - 1)
            upper, lower = self._weights[:, top:bottom, None]
            mixed = rows.index_select(1, first).mul_(upper)
            rows = mixed.addcmul_(rows.index_select(1, second), lower)
        if self._columns_alone:
            columns = F.interpolate(rows.flatten(0, 1)[None], size=self.out_width, mode='linear', align_corners=False)
            rows = columns[0].unflatten(0, rows.shape[:2])
        elif self.in_width != self.out_width:
            size = (rows.shape[1], self.out_width)
            rows = F.interpolate(rows[None], size=size, mode='bilinear', align_corners=self.align_corners)[0]
        return rows
