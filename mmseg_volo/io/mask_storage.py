"""Read how a mask file stores its values: its nodata value, lossy compression, signed integers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_volo.io.raster_reader import driver_of, open_any
from mmseg_volo.utils.files import refuse_special

GDAL_NODATA, SAMPLE_FORMAT, BITS = 42113, 339, 258  # tags of TIFF
LOSSY = ('JPEG', 'MPO', 'AVIF', 'HEIF')  # Pillow's names of formats
LOSSY_TIFF = ('jpeg', 'tiff_jpeg', 'webp')  # Pillow's names of compressions; GDAL's WebP is lossy by default
JPEG_2000 = b'\xff\x52'  # marker of the coding style of a JPEG 2000 file
HEAD = 4096  # bytes that hold the marker


def nodata_of(picture: Image.Image) -> int | None:
    """Return the nodata value that GDAL has written into a TIFF, if it is a whole number of up to 32 bits."""
    return _whole(getattr(picture, 'tag_v2', {}).get(GDAL_NODATA))


def _whole(tag: object) -> int | None:
    try:
        value = float(str(tag).strip('\0 '))
    except ValueError:
        return None
    return int(value) if math.isfinite(value) and value == int(value) and abs(value) < 1 << 32 else None


def is_lossy(picture: Image.Image, path: Path) -> bool:
    """Whether the compression of a picture changes its values."""
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
    start = head.find(JPEG_2000)
    return start >= 0 and head[start + 13 : start + 14] == b'\0'  # the wavelet 9-7, which rounds; 5-3 is reversible


def by_gdal(path: Path) -> tuple[np.ndarray, int | None] | None:
    """Read the values (H, W) and the nodata value of a TIFF or JPEG 2000 file of one band with GDAL, which knows 64-bit
    integers and compressions that Pillow does not. None for other files, or without rasterio.
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
    except Exception:  # a broken file makes GDAL raise anything: another reader reports it
        return None


def signed(picture: Image.Image) -> np.ndarray:
    """Return the values of a picture with the sign that its file declares: Pillow reads 8 bits as unsigned and 32 bits
    as signed."""
    pixels = np.asarray(picture)
    tags = getattr(picture, 'tag_v2', {})
    kind, bits = tags.get(SAMPLE_FORMAT, (1,)), tags.get(BITS, (8,))
    if kind == (2,) and pixels.dtype == np.uint8:
        return pixels.view(np.int8)
    if kind == (1,) and bits == (32,) and pixels.dtype == np.int32:
        return pixels.view(np.uint32).astype(np.int64)
    return pixels
