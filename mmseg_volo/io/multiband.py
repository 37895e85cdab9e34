"""Read images that are not 8-bit RGB: more channels, 16 bits, floating point."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.io.convert import to_path
from mmseg_volo.io.image import apply_orientation, orientation_of, read_image
from mmseg_volo.io.raster_pixels import missing, native
from mmseg_volo.io.raster_reader import driver_of, is_georeferenced, open_any, rasterio_module

TIFF = ('.tif', '.tiff')
RGB_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')  # converted to RGB without loss but for alpha
BITS_PER_SAMPLE, SAMPLES, SAMPLE_FORMAT = 258, 277, 339  # tags of TIFF


def is_plain(path: Path) -> bool:
    """Whether a file is an 8-bit picture in RGB, or in a mode of `RGB_MODES`; reads only its header."""
    if path.suffix.lower() == '.npy':
        return False
    with path.open('rb') as file:
        head = file.read(100)
    try:
        with Image.open(path) as picture:
            tags = getattr(picture, 'tag_v2', {}) if picture.format == 'TIFF' else {}
            mode = picture.mode
            if tags.get(SAMPLES, 1) > len(picture.getbands()) or mode == 'RGBX':
                return False  # Pillow leaves channels out
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return path.suffix.lower() not in TIFF  # Pillow reads few formats of several bands, and refuses large files
    except Exception:  # a broken file makes Pillow raise anything
        return True  # reading the pixels reports the error
    bits, kinds = max(tags.get(BITS_PER_SAMPLE, (8,))), set(tags.get(SAMPLE_FORMAT, (1,)))
    if head.startswith(b'\x89PNG'):
        bits = head[24]
    elif driver_of(head) == 'JP2OpenJPEG' and (start := head.find(b'ihdr')) >= 0:
        bits = (head[start + 14] & 127) + 1
    return mode in RGB_MODES and bits <= 8 and kinds == {1}


def read_bands(source: str | Path | bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Read an image of any kind, unconverted, and the pixels where it has no data.

    TIFF and JPEG 2000 files are read by rasterio if it is installed; without it, only those of one channel: OpenCV
    silently drops channels, and Pillow bits.

    Args:
        source: a path, or the content of a file.

    Returns:
        Pixels (H, W, C), channels in the order of the file, colours as RGB; and bool (H, W, C), true where a pixel has
        no data (nodata value, mask, NaN or infinity), None if all have.

    Raises:
        BadFileError: it is missing or unreadable.
        UsageError: only rasterio, which is not installed, can read it.
    """
    name = 'the image given as bytes' if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise BadFileError('missing', f'{source} is missing')
    try:
        pixels, gone = _read(source, name)
    except UsageError:
        raise
    except Exception as error:  # a broken file makes the libraries raise anything
        raise BadFileError('unreadable', f'{name} is not a readable image ({" ".join(str(error).split())})') from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.dtype.kind not in 'uif' or not pixels.size:
        raise BadFileError(
            'unreadable', f'{name} is {pixels.dtype} of the shape {pixels.shape}, expected (H, W, channels)'
        )
    if gone is None and pixels.dtype.kind == 'f' and not (known := np.isfinite(pixels)).all():
        gone = ~known
    return pixels, gone


def sums_of(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return float64 (3, C): for each channel the number of known pixels, their sum, and the sum of their squares.

    Args:
        pixels: (H, W, C).
        known: bool (H, W, C).
    """
    wide = np.where(known, pixels, 0).astype(np.float64).reshape(-1, pixels.shape[2])
    return np.stack([known.reshape(wide.shape).sum(0), wide.sum(0), (wide**2).sum(0)])


def _read(source: str | Path | bytes, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    if content.startswith(b'\x93NUMPY'):
        return np.load(io.BytesIO(content), allow_pickle=False), None
    if driver_of(content[:12]) is None:
        return _opencv(content), None
    with open_any(source) as raster:
        if raster is not None:
            pixels = native(raster)
            gone = missing(raster, None, pixels)
            pixels, gone = pixels.transpose(1, 2, 0), None if gone is None else gone.transpose(1, 2, 0)
            orientation = 1 if is_georeferenced(raster) else orientation_of(content)
            if orientation == 1:
                return pixels, gone
            rotated = None if gone is None else apply_orientation(gone, orientation)
            return apply_orientation(pixels, orientation), rotated
    return _grey_tiff(content, name), None


def _grey_tiff(content: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.mode[0] in 'IF':
                return np.array(picture)
    except UnidentifiedImageError:
        if rasterio_module() is not None:
            raise
    raise UsageError(f'{name} has several channels: pip install rasterio, which reads such files')


def _opencv(content: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError('no picture')
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return pixels


def array_of(image: object) -> tuple[np.ndarray, np.ndarray | None]:
    """Read whatever an application passes as an image, as `read_bands` does; tensors are (C, H, W)."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return read_bands(bytes(image))
    if isinstance(image, (str, os.PathLike)):
        return read_bands(to_path(image))
    if isinstance(image, Tensor):
        tensor = image.detach().cpu()
        pixels = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        pixels = pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels
    elif isinstance(image, np.ma.MaskedArray):
        pixels = np.atleast_3d(image.data)
        return pixels, np.atleast_3d(np.ma.getmaskarray(image))
    elif isinstance(image, (np.ndarray, Image.Image)):
        pixels = np.asarray(image)
    else:
        raise UsageError(
            f'expected an image as a path, bytes of a file, a PIL image, an array or a tensor, got '
            f'{type(image).__name__}'
        )
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return pixels, ~np.isfinite(pixels) if pixels.dtype.kind == 'f' else None


def to_picture(path: str | Path) -> np.ndarray:
    """Convert an image of any kind to uint8 RGB (H, W, 3) for display. Of images that are not 8-bit RGB, the first
    three channels, or the first one as grey, are scaled from their smallest to their largest value.

    Raises:
        FileNotFoundError, UsageError: it is missing or unreadable.
    """
    if is_plain(Path(path)):
        return read_image(path)
    pixels, gone = read_bands(path)
    pixels = pixels.astype(np.float32) if gone is None else np.where(gone, np.nan, pixels.astype(np.float32))
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, 2)
    known = np.isfinite(pixels)
    low = np.min(pixels, (0, 1), initial=np.inf, where=known)
    high = np.max(pixels, (0, 1), initial=-np.inf, where=known)
    shown = np.where(known, (pixels - low) * (255 / np.maximum(high - low, 1e-9)), 0)
    levels: np.ndarray = np.rint(np.nan_to_num(shown))
    return levels.astype(np.uint8)
