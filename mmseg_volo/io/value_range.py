"""From the values of pixels to 8 bits: one rule for each type, wherever an image comes from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from mmseg_volo.errors import UsageError

Tell = Callable[[str], Any]
LOGGER = logging.getLogger('mmseg_volo')
LEVELS = 16  # an image that would keep fewer grey levels of 256 is refused
DIM = 64  # one that would keep fewer is taken, with a word
MOST = 0.999  # of the pixels, by which this is judged
SLACK = 1e-3  # floating point may pass 0 and 1 by this much, as interpolation does
NODATA_RGB = (124, 116, 104)  # ImageNet's mean: what an RGB network sees where an image has no data


class Values:
    """What the values of an image are, counted piece by piece.

    Args:
        dtype: of the pixels.
    """

    def __init__(self, dtype: np.dtype):
        self.dtype, self.low, self.high = dtype, np.inf, -np.inf
        self.levels = np.zeros(256, np.int64)  # pixels of each grey level that 8 bits would have

    def add(self, pixels: np.ndarray) -> None:
        """Some of the image's values, of any shape, all of them numbers."""
        if pixels.size:
            self.low, self.high = min(self.low, pixels.min()), max(self.high, pixels.max())
            if self.dtype == np.uint16 or self.dtype.kind == 'f':
                self.levels += np.bincount(to_bytes(pixels).ravel(), minlength=256)

    @property
    def brightest(self) -> int:
        """The grey level that 99.9 % of the pixels do not pass."""
        return int(np.searchsorted(np.cumsum(self.levels), MOST * self.levels.sum()))


def check_range(values: Values, name: str, tell: Tell = LOGGER.warning) -> None:
    """Whether the values of an image can be what their type says.

    | type | black to white |
    |---|---|
    | uint8 | 0 to 255, as they are |
    | uint16 | 0 to 65535, of which the upper 8 bits are taken |
    | other integers | 0 to 255 |
    | floating point | 0 to 1 |
    | bool | False, True |

    Args:
        values: all of the image's.
        name: of the image, for the message.
        tell: takes a sentence about an image that is odd and taken all the same.

    Raises:
        UsageError: they cannot.
    """
    dtype, kind, low, high = values.dtype, values.dtype.kind, values.low, values.high
    remedy = 'say what is black and white (--value-range LOW HIGH, in Python value_range=), or make it uint8'
    if kind not in 'uifb':
        raise UsageError(f'{name}: pixels are integers, floating point or bool, here {dtype}: convert it first')
    if kind == 'f' and not (low >= -SLACK and high <= 1 + SLACK):
        ends = f'from {_plain(low)} to {_plain(high)}'
        raise UsageError(f'{name}: floating point goes from 0 to 1, here {ends}: {remedy}')
    if kind in 'ui' and dtype != np.uint16 and (low < 0 or high > 255):
        raise UsageError(f'{name}: {dtype} goes from 0 to 255, here from {low} to {high}: {remedy}')
    if not values.levels.any() or high == 0 or (levels := values.brightest + 1) >= DIM:
        return
    rule, most = ('uint16 goes from 0 to 65535', levels * 256 - 1)
    if kind == 'f':
        rule, most = 'floating point goes from 0 to 1', (levels - 0.5) / 255
    here = f'{_plain(high)} only' if high <= most else f'{most:.4g} only, but for less than one pixel in a thousand'
    if levels < LEVELS:
        raise UsageError(f'{name}: {rule}, here to {here}, nearly black: {remedy}')
    tell(f'{name}: {rule}, here to {here}, {levels} of 256 grey levels: {remedy}')


def _plain(value: float) -> str:
    """The shortest text that is this number of its type."""
    return str(value).removesuffix('.0')


def to_bytes(pixels: np.ndarray, value_range: Sequence[float] | None = None) -> np.ndarray:
    """Values as uint8, by the rules of `check_range`.

    Args:
        pixels: of any shape.
        value_range: what is black and what is white, instead of the rules; what lies beyond is black or white.
    """
    if value_range is not None:
        low, high = value_range
        pixels = (pixels.astype(np.float32) - low) / (high - low)
    elif pixels.dtype == np.uint8:
        return pixels
    elif pixels.dtype.kind == 'b':
        return pixels.astype(np.uint8) * 255
    elif pixels.dtype.kind != 'f':
        return (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.uint8)
    return np.rint(np.nan_to_num(pixels).clip(0, 1).astype(np.float32) * 255).astype(np.uint8)


def values_to_rgb(
    pixels: np.ndarray,
    name: str,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tell: Tell = LOGGER.warning,
) -> np.ndarray:
    """An image of any type as uint8 RGB (H, W, 3).

    Args:
        pixels: (H, W) or (H, W, C): grey, grey and alpha, RGB, or RGB and alpha; alpha is dropped. What is no number,
            or masked in a `numpy.ma` array, is ImageNet's mean.
        name: for messages.
        bands: which channels are red, green and blue, or the one that is grey, counted from 1.
        value_range, tell: see `to_bytes` and `check_range`.

    Raises:
        UsageError: there are other channels, or other values.
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if bands is not None:
        if max(bands) > pixels.shape[2] or len(bands) not in (1, 3):
            raise UsageError(
                f'{name}: bands {",".join(map(str, bands))} were asked for, expected 3 of its {pixels.shape[2]}, or one'
            )
        pixels = pixels[..., [band - 1 for band in bands]]
    pixels = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]
    gone = np.ma.getmaskarray(pixels) if isinstance(pixels, np.ma.MaskedArray) else None
    pixels = np.asarray(pixels).astype(pixels.dtype.newbyteorder('='), copy=False)
    if pixels.dtype.kind == 'f' and not (known := np.isfinite(pixels)).all():
        gone = ~known if gone is None else gone | ~known
    if value_range is None and pixels.dtype != np.uint8:
        values = Values(pixels.dtype)
        values.add(pixels if gone is None else pixels[~gone])
        check_range(values, name, tell)
    pixels = to_bytes(pixels, value_range)
    if gone is not None and gone.any():
        return np.where(gone, np.array(NODATA_RGB, np.uint8), pixels)  # grey becomes three channels
    return np.ascontiguousarray(pixels if pixels.shape[2] == 3 else cv2.merge([pixels[..., 0]] * 3))
