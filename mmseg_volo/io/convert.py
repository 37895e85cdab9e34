"""Whatever an application calls an image, by one rule for each kind, or a clear error. docs/images.md has the table."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from mmseg_volo.errors import UsageError
from mmseg_volo.io.image import decode_image, read_image
from mmseg_volo.io.value_range import LOGGER, Tell, values_to_rgb

Source = str | os.PathLike | bytes | Image.Image | np.ndarray | Tensor
LONGEST = 1024  # characters: a text beyond that is no path


def to_rgb(
    image: Source,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tell: Tell = LOGGER.warning,
) -> np.ndarray:
    """An image as uint8 RGB (H, W, 3).

    | given | rule |
    |---|---|
    | path, `bytes` of a file | decoded, turned as its EXIF says; palettes in their colours |
    | PIL image | turned as its EXIF says, converted to RGB |
    | array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) | grey, RGB or RGBA |
    | tensor (H, W), (1, H, W), (3, H, W), (4, H, W) | the same, channels first |

    Alpha is dropped, grey becomes three channels, and values become 8 bits by the rules of `value_ranges.check_range`,
    all alike. Pixels that a TIFF says have no data are ImageNet's mean.

    Args:
        image: see above.
        bands: which channels are red, green and blue, counted from 1; those that are said to be if None.
        value_range: what is black and what is white, instead of the rules.
        tell: takes a sentence about an image that is odd and taken all the same; the logger `mmseg_volo` by default.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is none of these, or its values are not of the stated range.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(to_path(image), bands, value_range, tell)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), 'the image given as bytes', bands, value_range, tell)
    pixels, name = as_array(image)
    return values_to_rgb(pixels, name, bands, value_range, tell)


def to_path(given: str | os.PathLike) -> Path:
    """The file that an application names.

    Raises:
        FileNotFoundError: there is none.
        UsageError: it is no path.
    """
    text = os.fspath(given)
    path = Path(os.path.expanduser(text))
    with contextlib.suppress(OSError):  # names that are too long
        if path.is_file():
            return path
        if path.is_dir():
            raise UsageError(f'{path} is a folder: give one image; mmseg-volo predict takes folders')
    if text.startswith('data:'):
        raise UsageError(f'a data URL of {len(text)} characters was given: give the bytes, base64.b64decode(...)')
    if '://' in text[:10]:
        raise UsageError(f'{text[:200]} is an address: fetch it first, and give its path or its bytes')
    if len(text) > LONGEST:
        raise UsageError(f'a text of {len(text)} characters was given, expected a path: of base64 give the bytes')
    raise FileNotFoundError(f'no image at {path.absolute()}')


def as_array(image: Any) -> tuple[np.ndarray, str]:
    """A PIL image, array or tensor as an array (H, W) or (H, W, C), and what it is called in messages.

    Raises:
        UsageError: it is none of these, or of another shape.
    """
    if isinstance(image, Image.Image):
        return _of_pil(image), f'a PIL image of mode {image.mode}'
    if not isinstance(image, (np.ndarray, Tensor)):
        raise UsageError(
            f'expected an image as a path, bytes of a file, a PIL image, an array or a tensor, got '
            f'{type(image).__name__}'
        )
    name = f'an image of {image.dtype} and shape {tuple(image.shape)}'
    if isinstance(image, Tensor):
        pixels = image.detach().cpu()
        pixels = (pixels.float() if pixels.is_floating_point() else pixels).numpy()
        if pixels.ndim == 3 and pixels.shape[0] not in (1, 3, 4):
            raise UsageError(f'{name}: tensors have the shape (H, W) or (C, H, W) with 1, 3 or 4 channels')
        pixels = pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels
    else:
        pixels = image
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        hint = '; channels come last in arrays, first in tensors' if pixels.ndim == 3 and pixels.shape[0] < 5 else ''
        raise UsageError(f'{name}: arrays have the shape (H, W) or (H, W, C) with 1, 3 or 4 channels{hint}')
    if not pixels.size:
        raise UsageError(f'{name}: it has no pixel')
    return pixels, name


def _of_pil(image: Image.Image) -> np.ndarray:
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode not in ('I', 'F') and not image.mode.startswith('I;'):
            return np.array(image.convert('RGB'))
        pixels = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:  # it reads the file only now; not every mode becomes RGB
        raise UsageError(f'the PIL image cannot be read ({error})') from error
    # 16 bits, which PIL keeps in 32
    wide = image.mode == 'I' and 0 <= pixels.min() and 255 < pixels.max() < 65536
    return pixels.astype(np.uint16) if wide else pixels
