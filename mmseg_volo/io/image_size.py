"""Read the size of a picture from its header, as each library would, before anything is decoded."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

from PIL import Image

from mmseg_volo.io.raster_reader import driver_of, open_any

HEAD = b'\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR'
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type
DEFLATE = 1032  # largest ratio by which a PNG's compression expands
TEXT = 1 << 12  # bytes that hold a text header
IN_TEXT = {  # width and height in text headers that OpenCV reads and Pillow does not: PAM, colour PFM, Radiance HDR
    b'P7': (rb'\bWIDTH\s+(\d{1,9})', rb'\bHEIGHT\s+(\d{1,9})'),
    b'PF': (rb'\APF\s+(\d{1,9})', rb'\APF\s+\d+\s+(\d{1,9})'),
    b'#?': (rb'[-+]X (\d{1,9})', rb'[-+]Y (\d{1,9})'),
}


def sizes_of(source: Path | bytes) -> list[tuple[int, int]]:
    """Return (width, height) in the header of a file, or of its content, as each library reads it.

    The sizes differ if the header states them twice. The list is empty if no library decodes the file.

    Raises:
        Image.DecompressionBombError: the size exceeds Pillow's limit.
    """
    file: Path | io.BytesIO
    if isinstance(source, bytes):
        head, file = source[:TEXT], io.BytesIO(source)
    else:
        with source.open('rb') as opened:
            head, file = opened.read(TEXT), source
    sizes = [struct.unpack('>II', head[16:24])] if head.startswith(HEAD) and len(head) >= 24 else []
    if driver_of(head) is not None:
        with open_any(source) as raster:
            sizes += [] if raster is None else [(raster.width, raster.height)]
    try:
        with Image.open(file) as picture:
            sizes.append(picture.size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the latter where warnings are errors
        raise
    except Exception:  # a broken or unknown file makes Pillow raise anything
        pass
    texts = next((texts for start, texts in IN_TEXT.items() if head.startswith(start)), ())
    numbers = [max(map(int, re.findall(text, head)), default=0) for text in texts]
    return [*sizes, (numbers[0], numbers[1])] if numbers else sizes


def states_its_size(content: bytes) -> bool:
    """Whether `sizes_of` knows the size of a file: OpenCV itself does not report it before it decodes."""
    try:
        return bool(sizes_of(content))
    except Image.DecompressionBombError:
        return True


def overstated_png(content: bytes) -> bool:
    """Whether the header of a PNG states more pixels than its bytes can hold."""
    if not content.startswith(HEAD) or len(content) < 26:
        return False
    width, height, depth, colours = struct.unpack('>IIBB', content[16:26])
    return bool(height * (width * depth * CHANNELS.get(colours, 1) // 8) > DEFLATE * len(content))


def broken_png(content: bytes) -> bool:
    """Whether a PNG file is truncated, fails its checksums, which OpenCV and Pillow ignore, or is `overstated_png`."""
    if not content.startswith(HEAD[:8]):
        return False
    if overstated_png(content):
        return True
    start = 8
    while start + 12 <= len(content):
        (length,) = struct.unpack_from('>I', content, start)
        end = start + 8 + length
        if end + 4 > len(content) or zlib.crc32(content[start + 4 : end]) != struct.unpack_from('>I', content, end)[0]:
            return True
        if content[start + 4 : start + 8] == b'IEND':
            return False
        start = end + 4
    return True
