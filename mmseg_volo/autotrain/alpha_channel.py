"""Measure last channels that files label alpha: some hold near infrared, heat or depth instead of transparency."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmseg_volo.io.multiband import read_bands, sums_of
from mmseg_volo.io.raster_reader import driver_of, rasterio_module

VARIES = 0.5  # share of pixels that are neither 0 nor 255, above which it is a channel of data
EDGES = 0.05  # the same, up to which these are soft edges of transparent areas


@dataclass(frozen=True)
class Alpha:
    """Statistics of an image whose last channel is labelled alpha."""

    sums: NDArray[np.float64]  # of all channels, see `ImageStats`
    partial: float  # share of the pixels that are neither 0 nor 255 in the last one


def alpha_of(path: Path, picture: Image.Image) -> Alpha | None:
    """Measure an image of 2 or 4 channels of bytes; None if the last is not labelled alpha or cannot be loaded.

    Args:
        path: of the file.
        picture: its decoded content.
    """
    with path.open('rb') as file:
        raster = driver_of(file.read(12)) is not None
    if picture.mode not in ('RGBA', 'LA') or not raster and (picture.format != 'PNG' or picture.mode == 'LA'):
        return None
    if raster and rasterio_module() is not None:  # Pillow divides colours by an alpha they were multiplied by
        pixels = read_bands(path)[0]
    else:
        pixels = np.asarray(picture)
    last = pixels[..., -1]
    partial = float(((last > 0) & (last < 255)).mean())
    return Alpha(sums_of(pixels, np.ones(pixels.shape, bool)), partial)
