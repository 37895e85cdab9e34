"""How large a picture is, as each library that may decode it says, before one does."""

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
DEFLATE = 1032  # bytes that one byte of a PNG becomes at most
TEXT = 1 << 12  # bytes, in which a head of text ends
IN_TEXT = {  # width and height in heads of what OpenCV decodes and Pillow does not: PAM, PFM of colours, Radiance HDR
    b'P7': (rb'\bWIDTH\s+(\d{1,9})', rb'\bHEIGHT\s+(\d{1,9})'),
    b'PF': (rb'\APF\s+(\d{1,9})', rb'\APF\s+\d+\s+(\d{1,9})'),
    b'#?': (rb'[-+]X (\d{1,9})', rb'[-+]Y (\d{1,9})'),
}


def sizes_of(source: Path | bytes) -> list[tuple[int, int]]:
    """(Width, height) in the head of a file, or of the content of one, as each library reads it.

    They differ where a head says it twice. Where there is none, the file is of no kind that is decoded.

    Raises:
        Image.DecompressionBombError: Pillow reads more than it opens.
    """
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
    except Exception:  # whatever a broken file makes Pillow raise, which does not know all kinds
        pass
    texts = next((texts for start, texts in IN_TEXT.items() if head.startswith(start)), ())
    numbers = [max(map(int, re.findall(text, head)), default=0) for text in texts]
    return [*sizes, (numbers[0], numbers[1])] if numbers else sizes


def states_its_size(content: bytes) -> bool:
    """Whether a library other than OpenCV reads the head of a file, as OpenCV says no size before it decodes."""
    try:
        return bool(sizes_of(content))
    except Image.DecompressionBombError:
        return True


def overstated_png(content: bytes) -> bool:
    """Whether a PNG says to be larger than so many bytes can hold."""
    if not content.startswith(HEAD) or len(content) < 26:
        return False
    width, height, depth, colours = struct.unpack('>IIBB', content[16:26])
    return height * (width * depth * CHANNELS.get(colours, 1) // 8) > DEFLATE * len(content)


def broken_png(content: bytes) -> bool:
    """Whether it is a PNG file that was cut or damaged, by the checksums inside, which OpenCV and Pillow pass over, or
    that says to be larger than it can be."""
    if not content.startswith(HEAD[:8]):
        return False
    if overstated_png(content):
        return True
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
