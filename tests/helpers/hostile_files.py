"""Files that claim, or lead to, what nobody should get: what tests of them are made of."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def png(width: int, height: int, mode: int = 2) -> bytes:
    """A whole PNG of 8 bits that says it has so many pixels, and holds none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, mode, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def vrt(source: str | Path, bands: int, width: int, height: int) -> str:
    """GDAL's virtual raster of another file, or of an address; of one band also a mask beside an image."""
    band = '<VRTRasterBand dataType="Byte" band="{0}"><SimpleSource><SourceFilename>{1}</SourceFilename>'
    band += '<SourceBand>{0}</SourceBand></SimpleSource></VRTRasterBand>'
    flags = '<Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata>'
    parts = ''.join(band.format(i + 1, source) for i in range(bands))
    return f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{flags}{parts}</VRTDataset>'


def said_twice(tiff: bytes, width: int, height: int) -> bytes:
    """A TIFF file, little-endian, whose size stands there a second time, and is another one."""
    (place,) = struct.unpack_from('<I', tiff, 4)
    (count,) = struct.unpack_from('<H', tiff, place)
    entries = [tiff[place + 2 + 12 * i : place + 14 + 12 * i] for i in range(count)]
    entries += [struct.pack('<HHII', tag, 4, 1, value) for tag, value in ((256, width), (257, height))]
    entries.sort(key=lambda entry: struct.unpack_from('<H', entry)[0])  # the first ones stay first
    directory = struct.pack('<H', len(entries)) + b''.join(entries) + bytes(4)
    return tiff[:4] + struct.pack('<I', len(tiff)) + tiff[8:] + directory
