"""Reading images and labels, with the values that mmseg's loading gives and one sentence about what cannot be read.

PNG files of 8-bit RGB or grey, which most data sets hold, are decoded by kornia-rs where it is installed, in half
the time or less.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmseg_volo.errors import UsageError

try:
    from kornia_rs.io import decode_image_png_u8 as decode_png
except ImportError:
    decode_png = None

HEAD = b'\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR'
MODES = {b'\x08\x00': 'mono', b'\x08\x02': 'rgb'}  # by bit depth and colour type
SPECIAL = (b'eXIf', b'tRNS', b'acTL')  # turned, with a transparent colour, or animated: left to the others


def read_image(path: str | Path) -> np.ndarray:
    """An image file as uint8 RGB (H, W, 3), turned as its EXIF says; of 16 bits the upper 8, without alpha.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is no readable picture.
    """
    return decode_image(Path(path).read_bytes(), path)


def decode_image(content: bytes, name: str | Path) -> np.ndarray:
    """As `read_image`, of a file's content; `name` is for the message."""
    image = _plain_png(content, 'rgb')
    if image is None and content and not broken_png(content):
        image = _decode(content, cv2.IMREAD_COLOR)
        image = None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
    if image is None:
        raise UsageError(f'{name} ({len(content)} bytes) is not a readable picture: repair or remove it')
    return image


def read_label(path: str | Path) -> np.ndarray:
    """The values of a label file as uint8 (H, W); those of a palette image are its indices.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is no readable picture, has several channels, or values above 255.
    """
    content = Path(path).read_bytes()
    label = _plain_png(content, 'mono')
    if label is not None:
        return label.reshape(label.shape[:2])
    if broken_png(content):
        raise UsageError(f'{path} ({len(content)} bytes) is not a readable picture: repair or remove it')
    try:
        with Image.open(io.BytesIO(content)) as picture:
            label = np.array(picture)
    except Exception as error:  # whatever a broken file makes Pillow raise
        raise UsageError(f'{path} ({len(content)} bytes) is not a readable picture: repair or remove it') from error
    if label.ndim != 2:
        raise UsageError(f'{path} has the shape {label.shape}, expected class indices in one channel')
    if label.max() > 255 or label.min() < 0:
        raise UsageError(f'{path} holds values of {label.min()} to {label.max()}, expected 0 to 255')
    return label.astype(np.uint8, copy=False)


def broken_png(content: bytes) -> bool:
    """Whether it is a PNG file that was cut or damaged, by the checksums inside, which OpenCV and Pillow pass over."""
    if not content.startswith(HEAD[:8]):
        return False
    place = 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from('>I', content, place)
        end = place + 8 + length
        if end + 4 > len(content) or zlib.crc32(content[place + 4 : end]) != struct.unpack_from('>I', content, end)[0]:
            return True
        if content[place + 4 : place + 8] == b'IEND':
            return False
        place = end + 4
    return True


def _decode(content: bytes, flag: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error:  # instead of None, where a damaged head asks for an enormous picture
        return None


def _plain_png(content: bytes, mode: str) -> np.ndarray | None:
    """A plain PNG of that mode as uint8 (H, W), (H, W, 1) or (H, W, 3); None for anything else."""
    plain = content.startswith(HEAD) and MODES.get(content[24:26]) == mode
    if not plain or any(name in content for name in SPECIAL):
        return None
    if decode_png is None:  # OpenCV is a little faster than Pillow
        usable = mode == 'mono' and not broken_png(content)
        return _decode(content, cv2.IMREAD_UNCHANGED) if usable else None
    width, height = struct.unpack('>II', content[16:24])
    try:
        return decode_png(content, (height, width), mode)
    except Exception:  # a broken file: the others say so
        return None
