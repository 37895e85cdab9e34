"""Convert the values of pixels to 8 bits, by one rule for each type."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from mmseg_volo.errors import UsageError

Tell = Callable[[str], object]
LOGGER = logging.getLogger('mmseg_volo')
LEVELS = 16  # an image that would keep fewer grey levels of 256 is refused
DIM = 64  # one that would keep fewer is accepted, with a warning
MOST = 0.999  # share of the pixels that decides this
SLACK = 1e-3  # floating point may exceed 0 and 1 by this much, as after interpolation
NODATA_RGB = (124, 116, 104)  # ImageNet's mean: the input of an RGB network where an image has no data


class Values:
    """Range and histogram of an image's values, collected piece by piece.

    Args:
        dtype: of the pixels.
    """

    def __init__(self, dtype: np.dtype):
        self.dtype, self.low, self.high = dtype, np.inf, -np.inf
        self.levels = np.zeros(256, np.int64)  # number of pixels of each of the 256 grey levels after conversion

    def add(self, pixels: np.ndarray) -> None:
        """Add some of the image's values, of any shape, none of them NaN."""
        if pixels.size:
            self.low, self.high = min(self.low, pixels.min()), max(self.high, pixels.max())
            if self.dtype == np.uint16 or self.dtype.kind == 'f':
                self.levels += np.bincount(to_bytes(pixels).ravel(), minlength=256)

    @property
    def brightest(self) -> int:
        """Grey level that 99.9 % of the pixels do not exceed."""
        return int(np.searchsorted(np.cumsum(self.levels), MOST * self.levels.sum()))


def check_range(values: Values, name: str, tell: Tell = LOGGER.warning) -> None:
    """Check that the values of an image use the range of their type.

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
        tell: called with a warning about an image that is dark but accepted.

    Raises:
        UsageError: the values exceed the range, or use so little of it that the image would be nearly black.
    """
    dtype, kind, low, high = values.dtype, values.dtype.kind, values.low, values.high
    remedy = 'give the values of black and white (--value-range LOW HIGH, in Python value_range=), or convert to uint8'
    if kind not in 'uifb':
        raise UsageError(f'{name}: pixels are integers, floating point or bool, here {dtype}: convert it first')
    if kind == 'f' and not (low >= -SLACK and high <= 1 + SLACK):
        ends = f'from {_plain(low)} to {_plain(high)}'
        raise UsageError(f'{name}: floating point goes from 0 to 1, here {ends}: {remedy}')
    if kind in 'ui' and dtype != np.uint16 and (low < 0 or high > 255):
        raise UsageError(f'{name}: {dtype} goes from 0 to 255, here from {low} to {high}: {remedy}')
    if not values.levels.any() or high == 0 or (levels := values.brightest + 1) >= DIM:
        return
    if kind == 'f':
        rule, most = 'floating point goes from 0 to 1', (levels - 0.5) / 255
    else:
        rule, most = 'uint16 goes from 0 to 65535', levels * 256 - 1
    here = f'{_plain(high)} only' if high <= most else f'{most:.4g} only, but for less than one pixel in a thousand'
    if levels < LEVELS:
        raise UsageError(f'{name}: {rule}, here to {here}, nearly black: {remedy}')
    tell(f'{name}: {rule}, here to {here}, {levels} of 256 grey levels: {remedy}')


def _plain(value: float) -> str:
    """Format a number in the shortest form that its type reads back."""
    return str(value).removesuffix('.0')


def to_bytes(pixels: np.ndarray, value_range: Sequence[float] | None = None) -> np.ndarray:
    """Convert values to uint8, by the rules of `check_range`.

    Args:
        pixels: of any shape.
        value_range: the values of black and white, instead of the rules; values beyond are clipped.
    """
    if value_range is not None:
        low, high = value_range
        pixels = (pixels.astype(np.float32) - low) / (high - low)
    elif pixels.dtype == np.uint8:
        return pixels
    elif pixels.dtype.kind == 'b':
        return pixels.astype(np.uint8) * 255
    elif pixels.dtype.kind != 'f':
        byte_values: np.ndarray = pixels >> 8 if pixels.dtype == np.uint16 else pixels
        return byte_values.astype(np.uint8)
    scaled: np.ndarray = np.rint(np.nan_to_num(pixels).clip(0, 1).astype(np.float32) * 255)
    return scaled.astype(np.uint8)


def values_to_rgb(
    pixels: np.ndarray,
    name: str,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tell: Tell = LOGGER.warning,
) -> np.ndarray:
    """Convert an image of any type to uint8 RGB (H, W, 3).

    Args:
        pixels: (H, W) or (H, W, C): grey, grey and alpha, RGB, or RGB and alpha; alpha is dropped. NaN, infinity and
            what is masked in a `numpy.ma` array become ImageNet's mean.
        name: for messages.
        bands: which channels are red, green and blue, or which one is grey, counted from 1.
        value_range, tell: see `to_bytes` and `check_range`.

    Raises:
        UsageError: `bands` do not exist, or see `check_range`.
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if bands is not None:
        if max(bands) > pixels.shape[2] or len(bands) not in (1, 3):
            raise UsageError(
                f'{name}: expected 3 of its {pixels.shape[2]} bands, or one, got bands {",".join(map(str, bands))}'
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
