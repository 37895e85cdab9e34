"""Convert whatever an application passes as an image to uint8 RGB; docs/images.md lists the rules."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from mmseg_volo.errors import UsageError
from mmseg_volo.io.image import decode_image, read_image
from mmseg_volo.io.value_range import LOGGER, Tell, values_to_rgb

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor
LONGEST = 1024  # characters: longer text is no path


def to_rgb(
    image: Source,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tell: Tell = LOGGER.warning,
) -> np.ndarray:
    """Return an image as uint8 RGB (H, W, 3).

    | input | rule |
    |---|---|
    | path, `bytes` of a file | decoded, rotated by its EXIF orientation; palettes become colours |
    | PIL image | rotated by its EXIF orientation, converted to RGB |
    | array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) | grey, RGB or RGBA |
    | tensor (H, W), (1, H, W), (3, H, W), (4, H, W) | the same, channels first |

    Alpha is dropped, grey becomes three channels, and values become 8 bits by the rules of `value_range.check_range`.
    Pixels that a TIFF marks as nodata become ImageNet's mean.

    Args:
        image: see above.
        bands: which channels are red, green and blue, counted from 1; None takes those that the file declares.
        value_range: the values of black and white, instead of the rules.
        tell: called with a warning about an unusual image; the logger `mmseg_volo` by default.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is none of these, or its values are outside the expected range.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(to_path(image), bands, value_range, tell)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), 'the image given as bytes', bands, value_range, tell)
    pixels, name = as_array(image)
    return values_to_rgb(pixels, name, bands, value_range, tell)


def to_path(name: str | os.PathLike[str]) -> Path:
    """Return the path of an image file.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is a folder, an address, or data instead of a path.
    """
    text = os.fspath(name)
    path = Path(os.path.expanduser(text))
    with contextlib.suppress(OSError):  # the name is too long
        if path.is_file():
            return path
        if path.is_dir():
            raise UsageError(f'{path} is a folder: give one image; mmseg-volo predict takes folders')
    if text.startswith('data:'):
        raise UsageError(f'expected a path, got a data URL of {len(text)} characters: give base64.b64decode(...)')
    if '://' in text[:10]:
        raise UsageError(f'{text[:200]} is a URL: download it first, and give its path or its bytes')
    if len(text) > LONGEST:
        raise UsageError(f'expected a path, got a text of {len(text)} characters: decode base64 and give the bytes')
    raise FileNotFoundError(f'no image at {path.absolute()}')


def as_array(image: object) -> tuple[np.ndarray, str]:
    """Return a PIL image, array or tensor as an array (H, W) or (H, W, C), and its description for messages.

    Raises:
        UsageError: it is none of these, or has another shape.
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
        tensor = image.detach().cpu()
        pixels = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        if pixels.ndim == 3 and pixels.shape[0] not in (1, 3, 4):
            raise UsageError(f'{name}: tensors have the shape (H, W) or (C, H, W) with 1, 3 or 4 channels')
        pixels = pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels
    else:
        pixels = image
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        hint = '; channels come last in arrays, first in tensors' if pixels.ndim == 3 and pixels.shape[0] < 5 else ''
        raise UsageError(f'{name}: arrays have the shape (H, W) or (H, W, C) with 1, 3 or 4 channels{hint}')
    if not pixels.size:
        raise UsageError(f'{name} has no pixels')
    return pixels, name


def _of_pil(image: Image.Image) -> np.ndarray:
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode not in ('I', 'F') and not image.mode.startswith('I;'):
            return np.array(image.convert('RGB'))
        pixels = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:  # PIL reads the file only now; not every mode converts to RGB
        raise UsageError(f'the PIL image cannot be read ({error})') from error
    wide = image.mode == 'I' and 0 <= pixels.min() and 255 < pixels.max() < 65536  # 16 bits, which PIL keeps in 32
    return pixels.astype(np.uint16) if wide else pixels
