"""How the file of a mask stores its values: what stands for no data, with or without a loss, signed or not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_volo.io.raster_reader import driver_of, open_any
from mmseg_volo.utils.files import refuse_special

GDAL_NODATA, SAMPLE_FORMAT, BITS = 42113, 339, 258  # tags of TIFF
LOSSY = ('JPEG', 'MPO', 'AVIF', 'HEIF')  # Pillow's names of formats
LOSSY_TIFF = ('jpeg', 'tiff_jpeg', 'webp')  # and of compressions; WebP as GDAL writes it by itself
JPEG_2000 = b'\xff\x52'  # the marker of how JPEG 2000 codes an image
HEAD = 4096  # bytes that it stands in


def nodata_of(picture: Image.Image) -> int | None:
    """The whole number that stands for no data, if a TIFF names one of 32 bits, as GDAL does."""
    return _whole(getattr(picture, 'tag_v2', {}).get(GDAL_NODATA))


def _whole(said: object) -> int | None:
    try:
        value = float(str(said).strip('\0 '))
    except ValueError:
        return None
    return int(value) if math.isfinite(value) and value == int(value) and abs(value) < 1 << 32 else None


def is_lossy(picture: Image.Image, path: Path) -> bool:
    """Whether a picture was compressed in a way that changes its values."""
    if picture.format in LOSSY:
        return True
    if picture.format == 'TIFF':
        return picture.info.get('compression') in LOSSY_TIFF
    if picture.format not in ('WEBP', 'JPEG2000'):
        return False
    with path.open('rb') as file:
        head = file.read(HEAD)
    if picture.format == 'WEBP':
        return b'VP8 ' in head
    place = head.find(JPEG_2000)
    return place >= 0 and head[place + 13 : place + 14] == b'\0'  # the wavelet 9-7, which rounds; 5-3 is reversible


def by_gdal(path: Path) -> tuple[np.ndarray, int | None] | None:
    """The values (H, W) of a TIFF of one band and what stands for no data: of 64 bits, or compressed as Pillow does not
    know. None of another file, or where rasterio is not installed.
    """
    try:
        refuse_special(path)
        with path.open('rb') as file:
            if driver_of(file.read(12)) is None:
                return None
        with open_any(path) as raster:
            if raster is None or raster.count != 1:
                return None
            return raster.read(1), _whole(raster.nodata)
    except Exception:  # whatever GDAL makes of a broken file: what is wrong is said by others
        return None


def signed(picture: Image.Image) -> np.ndarray:
    """The values of a picture as its file means them: Pillow gives 8 bits without, 32 bits with a sign."""
    pixels = np.asarray(picture)
    tags = getattr(picture, 'tag_v2', {})
    kind, bits = tags.get(SAMPLE_FORMAT, (1,)), tags.get(BITS, (8,))
    if kind == (2,) and pixels.dtype == np.uint8:
        return pixels.view(np.int8)
    if kind == (1,) and bits == (32,) and pixels.dtype == np.int32:
        return pixels.view(np.uint32).astype(np.int64)
    return pixels
