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
SLACK = 1e-3  # floating point may pass 0 and 1 by this much, as interpolation does
NODATA_RGB = (124, 116, 104)  # ImageNet's mean: what an RGB network sees where an image has no data


def check_range(dtype: np.dtype, low: float, high: float, name: str, tell: Tell = LOGGER.warning) -> None:
    """Whether the values of an image can be what their type says.

    | type | black to white |
    |---|---|
    | uint8 | 0 to 255, as they are |
    | uint16 | 0 to 65535, of which the upper 8 bits are taken |
    | other integers | 0 to 255 |
    | floating point | 0 to 1 |
    | bool | False, True |

    Args:
        dtype: of the pixels.
        low, high: smallest and largest value.
        name: of the image, for the message.
        tell: takes a sentence about an image that is odd and taken all the same.

    Raises:
        UsageError: they cannot.
    """
    kind = dtype.kind
    remedy = 'say what is black and white (--value-range LOW HIGH, in Python value_range=), or make it uint8'
    if kind not in 'uifb':
        raise UsageError(f'{name}: pixels are integers, floating point or bool, here {dtype}: convert it first')
    if dtype == np.uint16:
        levels = (int(high) >> 8) + 1
        if high > 0 and levels < LEVELS:
            raise UsageError(f'{name}: uint16 goes from 0 to 65535, here to {high} only, nearly black: {remedy}')
        if high > 0 and levels < DIM:
            tell(f'{name}: uint16 goes from 0 to 65535, here to {high} only, {levels} of 256 grey levels: {remedy}')
    elif kind == 'f':
        if not (low >= -SLACK and high <= 1 + SLACK):  # NaN too
            ends = f'from {_plain(low)} to {_plain(high)}'
            raise UsageError(f'{name}: floating point goes from 0 to 1, here {ends}: {remedy}')
    elif kind in 'ui' and (low < 0 or high > 255):
        raise UsageError(f'{name}: {dtype} goes from 0 to 255, here from {low} to {high}: {remedy}')


def _plain(value: float) -> str:
    """The shortest text that is this number of its type."""
    return str(value).removesuffix('.0')


def to_bytes(pixels: np.ndarray, value_range: Sequence[float] | None = None) -> np.ndarray:
    """Values as uint8, by the rules of `check_range`, which they have passed.

    Args:
        pixels: of any shape.
        value_range: what is black and what is white, instead of the rules; what lies beyond is black or white.
    """
    if value_range is not None:
        low, high = value_range
        share = (pixels.astype(np.float32) - low) / (high - low)
        return np.rint(np.nan_to_num(share).clip(0, 1) * 255).astype(np.uint8)
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind == 'b':
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.kind == 'f':
        return np.rint(np.nan_to_num(pixels).clip(0, 1) * 255).astype(np.uint8)
    return (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.uint8)


def to_rgb(
    pixels: np.ndarray,
    name: str,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tell: Tell = LOGGER.warning,
) -> np.ndarray:
    """An image of any type as uint8 RGB (H, W, 3).

    Args:
        pixels: (H, W) or (H, W, C): grey, grey and alpha, RGB, or RGB and alpha; alpha is dropped.
        name: for messages.
        bands: which channels are red, green and blue, or the one that is grey, counted from 1.
        value_range, tell: see `to_bytes` and `check_range`.

    Raises:
        UsageError: there are other channels, or other values.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if bands is not None:
        if max(bands) > pixels.shape[2] or len(bands) not in (1, 3):
            raise UsageError(
                f'{name}: bands {",".join(map(str, bands))} were asked for, expected 3 of its {pixels.shape[2]}, or one'
            )
        pixels = pixels[..., [band - 1 for band in bands]]
    pixels = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]
    pixels = pixels.astype(pixels.dtype.newbyteorder('='), copy=False)
    if value_range is None and pixels.dtype != np.uint8:
        check_range(pixels.dtype, pixels.min(), pixels.max(), name, tell)
    pixels = to_bytes(pixels, value_range)
    return np.ascontiguousarray(pixels if pixels.shape[2] == 3 else cv2.merge([pixels[..., 0]] * 3))
