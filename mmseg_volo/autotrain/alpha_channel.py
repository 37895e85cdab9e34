"""A last channel that files call alpha: it is left out, unless it varies as near infrared, heat or depth do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_volo.io.multiband import read_bands, sums_of
from mmseg_volo.io.raster_reader import driver_of, rasterio_module

VARIES = 0.5  # of all pixels: where so many are neither 0 nor 255, it is a channel
EDGES = 0.05  # of all pixels: so many are the soft edges of what is transparent


@dataclass(frozen=True)
class Alpha:
    """What a file holds whose last channel is called alpha."""

    sums: np.ndarray  # of all channels, see `Facts`
    partial: float  # share of the pixels that are neither 0 nor 255 in the last one


def alpha_of(path: Path, picture: Image.Image) -> Alpha | None:
    """What a file with 2 or 4 channels of bytes holds, if the last is called alpha and loading can give it.

    Args:
        path: of the file.
        picture: the same, decoded.
    """
    with path.open('rb') as file:
        raster = driver_of(file.read(12)) is not None
    if picture.mode not in ('RGBA', 'LA') or not raster and (picture.format != 'PNG' or picture.mode == 'LA'):
        return None
    if raster and rasterio_module() is not None:  # Pillow divides colours by an alpha that they were multiplied with
        pixels = read_bands(path)[0]
    else:
        pixels = np.asarray(picture)
    last = pixels[..., -1]
    partial = float(((last > 0) & (last < 255)).mean())
    return Alpha(sums_of(pixels, np.ones(pixels.shape, bool)), partial)
