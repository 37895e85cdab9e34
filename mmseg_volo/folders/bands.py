"""Images that are no 8-bit RGB: more channels, 16 bits, floating point."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from PIL import Image, UnidentifiedImageError

from mmseg_volo.datasets.examine import BadFile
from mmseg_volo.errors import UsageError
from mmseg_volo.pictures import read_image

TIFF = ('.tif', '.tiff')
PLAIN = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')  # modes that loading makes RGB; alpha is dropped
BITS_PER_SAMPLE = 258  # a tag of TIFF


def is_plain(path: Path) -> bool:
    """Whether a file is a picture of 8 bits that is RGB or becomes it without a loss; looks at its header only."""
    if path.suffix.lower() == '.npy':
        return False
    try:
        with Image.open(path) as picture:
            bits = max(picture.tag_v2.get(BITS_PER_SAMPLE, (8,))) if picture.format == 'TIFF' else 8
            mode = picture.mode
    except UnidentifiedImageError:
        return path.suffix.lower() not in TIFF  # Pillow knows few kinds of several bands
    except OSError:
        return True  # the look at the pixels says what is wrong
    with path.open('rb') as file:
        head = file.read(25)
    deep = head.startswith(b'\x89PNG') and head[24:] == b'\x10'
    return mode in PLAIN and bits <= 8 and not deep


def read_bands(path: str | Path) -> np.ndarray:
    """An image of any kind as it is: (H, W, C), channels in the order of the file, RGB where it has colours.

    TIFF files are read by rasterio where it is installed; without, those of one channel only: OpenCV leaves channels
    out without a word, and Pillow bits.

    Raises:
        BadFile: it is missing or unreadable.
        UsageError: it takes rasterio to read it.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFile('missing', f'{path} is missing')
    try:
        if path.suffix.lower() == '.npy':
            pixels = np.load(path, allow_pickle=False)
        elif path.suffix.lower() in TIFF:
            pixels = (_rasterio() or _grey_tiff)(path)
        else:
            pixels = _opencv(path)
    except UsageError:
        raise
    except Exception as error:  # whatever a broken file makes the libraries raise
        raise BadFile('unreadable', f'{path} is not a readable image ({" ".join(str(error).split())})') from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.dtype.kind not in 'uif' or not pixels.size:
        raise BadFile('unreadable', f'{path} is {pixels.dtype} of the shape {pixels.shape}, expected (H, W, channels)')
    return pixels


def _rasterio() -> Any:
    try:
        import rasterio
    except ImportError:
        return None

    def read(path: Path) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                return file.read().transpose(1, 2, 0)

    return read


def _grey_tiff(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            if picture.mode[0] in 'IF':
                return np.array(picture)
    except UnidentifiedImageError:
        pass
    raise UsageError(f'{path} has several channels: pip install rasterio, which reads such files')


def _opencv(path: Path) -> np.ndarray:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError('no picture')
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return pixels


def as_picture(path: str | Path) -> np.ndarray:
    """An image of any kind to look at, uint8 RGB (H, W, 3): of what is no 8-bit RGB the first three channels, or the
    first one as grey, from their smallest to their largest value.

    Raises:
        FileNotFoundError, UsageError: it is missing or unreadable.
    """
    if is_plain(Path(path)):
        return read_image(path)
    pixels = read_bands(path).astype(np.float32)
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, 2)
    low, high = pixels.min((0, 1)), pixels.max((0, 1))
    return np.rint((pixels - low) * (255 / np.maximum(high - low, 1e-9))).astype(np.uint8)


@TRANSFORMS.register_module()
class LoadBands(BaseTransform):
    """Loads an image of any number of channels and any depth, each channel normalised: float32 (H, W, C).

    Args:
        mean: of each channel, in the file's units.
        std: of each channel.
        dtype: of the pixels; others are refused, as their units are others. Any if None.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: str | None = None):
        self.dtype = dtype
        self.mean = np.array(mean, np.float32)
        self.std = np.array(std, np.float32)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds what mmcv's `LoadImageFromFile` adds.

        Args:
            results: with `img_path`, or with an array `img` (H, W, C).

        Raises:
            BadFile, UsageError: the file cannot be read, or has other channels.
        """
        given = results.get('img')
        pixels = read_bands(results['img_path']) if given is None else np.atleast_3d(given)
        if pixels.shape[2] != len(self.mean) or self.dtype not in (None, str(pixels.dtype)):
            raise UsageError(
                f'{results.get("img_path", "the array")} has {pixels.shape[2]} channels of {pixels.dtype}, expected '
                f'{len(self.mean)} of {self.dtype or "any type"}, as in training'
            )
        image = (pixels.astype(np.float32) - self.mean) / self.std
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(mean={self.mean.tolist()}, std={self.std.tolist()}, dtype={self.dtype})'
