"""Whatever an application calls an image, as uint8 RGB, by one rule for each kind, or a clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from mmseg_volo.errors import UsageError
from mmseg_volo.pictures import decode_image, read_image

Source = str | Path | bytes | Image.Image | np.ndarray | Tensor


def as_rgb(image: Source) -> np.ndarray:
    """An image as uint8 RGB (H, W, 3).

    | given | rule |
    |---|---|
    | path, `bytes` of a file | decoded, turned as its EXIF says; of 16 bits the upper 8, no alpha |
    | PIL image | turned as its EXIF says, converted to RGB; alpha is dropped; of 16 bits the upper 8 |
    | array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) | grey, RGB or RGBA (alpha is dropped) |
    | tensor (H, W), (1, H, W), (3, H, W), (4, H, W) | the same, channels first |
    | uint8; other integers | as it is; from 0 to 255 |
    | uint16 | the whole range 0 to 65535, of which the upper 8 bits are taken |
    | floating point | 0 to 1 |
    | bool | False is black, True white |

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is none of these, or its values are not of the stated range.
    """
    if isinstance(image, (str, Path)):
        path = Path(image)
        if not path.is_file():
            raise FileNotFoundError(f'no image at {path.absolute()}')
        return read_image(path)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), 'the image given as bytes')
    if isinstance(image, Image.Image):
        return _of_pil(image)
    if isinstance(image, Tensor):
        pixels = image.detach().cpu()
        pixels = (pixels.float() if pixels.is_floating_point() else pixels).numpy()
        if pixels.ndim == 3:
            if pixels.shape[0] not in (1, 3, 4):
                raise _wrong(image, 'tensors have the shape (H, W) or (C, H, W) with 1, 3 or 4 channels')
            pixels = pixels.transpose(1, 2, 0)
        return _of_array(pixels, image)
    if isinstance(image, np.ndarray):
        return _of_array(image, image)
    raise UsageError(
        f'expected an image as a path, bytes of a file, a PIL image, an array or a tensor, got {type(image).__name__}'
    )


def _of_pil(image: Image.Image) -> np.ndarray:
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode not in ('I', 'F') and not image.mode.startswith('I;'):
            return np.array(image.convert('RGB'))
        pixels = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:  # it reads the file only now; not every mode becomes RGB
        raise UsageError(f'the PIL image cannot be read ({error})') from error
    # 16 or 32 bits, of which PIL would cut off what is above 255
    wide = image.mode != 'F' and 0 <= pixels.min() and 255 < pixels.max() < 65536
    return _of_array(pixels.astype(np.uint16) if wide else pixels, pixels)


def _of_array(pixels: np.ndarray, given: Any) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        hint = '; channels come last in arrays, first in tensors' if pixels.ndim == 3 and pixels.shape[0] < 5 else ''
        raise _wrong(given, f'arrays have the shape (H, W) or (H, W, C) with 1, 3 or 4 channels{hint}')
    if not pixels.size:
        raise _wrong(given, 'it has no pixel')
    pixels = _to_bytes(pixels[..., :3], given)
    return np.ascontiguousarray(pixels if pixels.shape[2] == 3 else cv2.merge([pixels[..., 0]] * 3))


def _to_bytes(pixels: np.ndarray, given: Any) -> np.ndarray:
    pixels = pixels.astype(pixels.dtype.newbyteorder('='), copy=False)
    kind = pixels.dtype.kind
    if pixels.dtype == np.uint8:
        return pixels
    if kind == 'b':
        return pixels.astype(np.uint8) * 255
    if kind not in 'uif':
        raise _wrong(given, 'pixels are integers, floating point or bool')
    low, high = pixels.min(), pixels.max()
    if kind == 'f':
        if not (low >= 0 and high <= 1):  # NaN too
            raise _wrong(given, f'floating point goes from 0 to 1, here from {low:g} to {high:g}')
        return np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype == np.uint16:
        if 0 < high <= 255:
            raise _wrong(given, f'uint16 goes from 0 to 65535, here to {high} only: if it is 0 to 255, make it uint8')
        return (pixels >> 8).astype(np.uint8)
    if low < 0 or high > 255:
        raise _wrong(given, f'{pixels.dtype} goes from 0 to 255, here from {low} to {high}')
    return pixels.astype(np.uint8)


def _wrong(given: Any, rule: str) -> UsageError:
    return UsageError(f'an image of {given.dtype} and shape {tuple(given.shape)} was given: {rule}; convert it first')
