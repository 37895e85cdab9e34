"""Read images and labels with the values that mmseg's loading gives; one clear error for what cannot be read.

PNG files of 8-bit RGB or grey, which most data sets hold, are decoded by kornia-rs where it is installed, in half
the time or less. docs/images.md lists the rules for all formats.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from mmseg_volo.errors import UsageError, as_errors
from mmseg_volo.io.image_size import HEAD, broken_png, overstated_png, states_its_size
from mmseg_volo.io.raster_pixels import RasterPixels
from mmseg_volo.io.raster_reader import GEO_KEYS, driver_of, is_georeferenced, open_any, rasterio_module
from mmseg_volo.io.value_range import LOGGER, Tell, values_to_rgb
from mmseg_volo.utils.files import refuse_special

try:
    from kornia_rs.io import decode_image_png_u8 as decode_png
except ImportError:
    decode_png = None

warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)  # large images are expected
logging.getLogger('PIL.TiffImagePlugin').setLevel(logging.CRITICAL)  # it reports every file of many bands
MODES = {b'\x08\x00': 'mono', b'\x08\x02': 'rgb'}  # by bit depth and colour type
SPECIAL = (b'eXIf', b'tRNS', b'acTL')  # rotated, with a transparent colour, or animated: kornia-rs does not read these
SUBFILE, BITS, COMPRESSION, ORIENTATION, SAMPLE_FORMAT, GDAL_NODATA = 254, 258, 259, 274, 339, 42113  # tags of TIFF
MASK, JPEG = 4, (6, 7)  # values of SUBFILE and COMPRESSION
CONVERT = 'of a kind that is not read: convert it to PNG, JPEG or TIFF'
OTHERS = {  # unsupported files by their first bytes -> description for the message
    b'%PDF': f'a PDF file, {CONVERT}',
    b'8BPS': f'a Photoshop file, {CONVERT}',
    b'FUJIFILM': f'a raw photo, {CONVERT}',
    b'<VRTDataset': 'a virtual raster, which names other files: make one file of it, gdal_translate IN.vrt OUT.tif',
    b'<svg': f'an SVG drawing, {CONVERT}',
    b'SIMPLE  =': f'a FITS file, {CONVERT}',
    b'\x89HDF': f'an HDF5 or netCDF file, {CONVERT}',
    b'CDF': f'a netCDF file, {CONVERT}',
    b'EHFA_HEADER_TAG': f'an ERDAS Imagine file, {CONVERT}',
    b'GRIB': f'a GRIB file, {CONVERT}',
    b'P7': f'a PAM file, {CONVERT}',
    b'NITF': f'a NITF file, {CONVERT}',
    b'\x93NUMPY': 'an array: numpy.load reads it',
    b'PK\x03\x04': 'a zip archive: unpack it',
    b'\x1f\x8b': 'a gzip archive: unpack it',
    b'version https://git-lfs': 'a pointer of Git LFS: git lfs pull fetches the file itself',
    b'<!DOCTYPE': 'a web page, perhaps in place of a download: fetch the picture again',
    b'<html': 'a web page, perhaps in place of a download: fetch the picture again',
}
# names of Pillow, which registers all but the first five only in `init`; it opens a JPEG of two images as MPO
FORMATS = ('BMP', 'GIF', 'JPEG', 'PPM', 'PNG', 'AVIF', 'DIB', 'JPEG2000', 'SUN', 'TGA', 'TIFF', 'WEBP')
HEIF = (b'ftypheic', b'ftypheix', b'ftyphevc', b'ftypmif1', b'ftypmsf1', b'ftypcrx ')  # from the fifth byte on


def read_image(
    path: str | Path,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tell: Tell = LOGGER.warning,
) -> np.ndarray:
    """Read an image file as uint8 RGB (H, W, 3), rotated by its EXIF orientation, without alpha.

    Args:
        path: of the file.
        bands: which channels are red, green and blue, counted from 1; None takes those that the file declares.
        value_range: the values of black and white, instead of the rules of `value_range`.
        tell: called with a warning about an unusual image.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is no readable picture, or its values exceed the range of their type.
    """
    refuse_special(path)
    with Path(path).open('rb') as file:
        head = file.read(12)
        if driver_of(head) is None:
            return decode_image(head + file.read(), path, bands, value_range, tell)
    return _raster_or_picture(Path(path), path, bands, value_range, tell)


def decode_image(
    content: bytes,
    name: str | Path,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tell: Tell = LOGGER.warning,
) -> np.ndarray:
    """Decode the content of an image file as `read_image` does; `name` is for messages."""
    if driver_of(content[:12]) is not None:
        return _raster_or_picture(content, name, bands, value_range, tell)
    image = None if bands or value_range else _plain_png(content, 'rgb')
    return values_to_rgb(decode_pixels(content, name), str(name), bands, value_range, tell) if image is None else image


def decode_pixels(content: bytes, name: str | Path) -> np.ndarray:
    """Decode the content of a picture file, unconverted: (H, W) or (H, W, C) of any type, channels in RGB order.

    Raises:
        UsageError: it is no readable picture.
    """
    image = None
    if content and not broken_png(content):
        if description := _unsupported(content):
            raise UsageError(f'{name} is {description}')
        if not _is_pillows(content) and states_its_size(content):
            image = _decode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
            image = None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
        image = _by_pillow(io.BytesIO(content)) if image is None else image
        if image is None and (kind := _known_to_pillow(content)):
            raise UsageError(f'{name} is a {kind} file, {CONVERT}')
    if image is None:
        raise UsageError(f'{name} ({len(content)} bytes) is not a readable picture: repair or remove it')
    return image


def _known_to_pillow(content: bytes) -> str | None:
    """Return Pillow's name of the format of a file that is none of `FORMATS`."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return None if picture.format in (*FORMATS, 'MPO') else picture.format
    except Exception:  # a broken file makes Pillow raise anything
        return None


def _is_pillows(content: bytes) -> bool:
    """Whether OpenCV would give other pixels than Pillow: GIF (background), AVIF (EXIF, 10 bits), Netpbm (the largest
    value that the file states) and JPEG of CMYK (rounding)."""
    if content.startswith((b'GIF8', b'P1', b'P2', b'P3', b'P4', b'P5', b'P6')) or b'ftypavi' in content[:16]:
        return True
    offset = 2 if content.startswith(b'\xff\xd8') else len(content)
    while offset + 10 < len(content) and content[offset] == 0xFF:
        marker = content[offset + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame header
            return content[offset + 9] == 4
        offset += 2 + int.from_bytes(content[offset + 2 : offset + 4], 'big')
    return False


def _unsupported(content: bytes) -> str | None:
    """Describe a file of an unsupported format."""
    if content[4:].startswith(HEIF) and b'avif' not in content[:64]:
        return f'a HEIC file or raw photo, {CONVERT}'
    if content[128:132] == b'DICM':
        return f'a DICOM file, {CONVERT}'
    head = content[:200].lstrip()
    return next((kind for start, kind in OTHERS.items() if head.lower().startswith(start.lower())), None)


def _raster_or_picture(
    source: Path | bytes, name: str | Path, bands: Sequence[int] | None, value_range: Sequence[float] | None, tell: Tell
) -> np.ndarray:
    """Read a TIFF or JPEG 2000 file: plain ones by Pillow, which knows their colour spaces, others by rasterio."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    plain = is_plain_tiff(file) and not (bands and rasterio_module())
    if plain and (image := _by_pillow(file)) is not None:
        return values_to_rgb(image, str(name), bands, value_range, tell)
    with open_any(source) as raster:
        if raster is not None:
            try:
                image = RasterPixels(raster, None, bands, value_range, name=name, tell=tell).rgb()
                return image if is_georeferenced(raster) else apply_orientation(image, orientation_of(source))
            except (UsageError, MemoryError):
                raise
            except Exception as error:  # GDAL raises more than rasterio's errors
                reason = error.__cause__ or error
                raise UsageError(f'{name} is not a readable picture ({reason}): repair or remove it') from error
    if (image := _by_pillow(file)) is not None and not _loses_bits(file):
        return values_to_rgb(image, str(name), bands, value_range, tell)
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    remedy = '' if rasterio_module() else '; if other programs read it, pip install rasterio'
    raise UsageError(f'{name} ({size} bytes) is not a readable picture: repair or remove it{remedy}')


def is_plain_tiff(file: Path | io.BytesIO) -> bool:
    """Whether Pillow reads a TIFF in full: unsigned, up to 8 bits, no georeference, no nodata, no mask, and without
    lossy compression, which GDAL decodes to other pixels."""
    if isinstance(file, Path) and any(Path(f'{file}{end}').exists() for end in ('.msk', '.aux.xml')):
        return False
    try:
        with Image.open(file) as picture:
            tags = getattr(picture, 'tag_v2', None)
            if tags is None or max(tags.get(BITS, (1,))) > 8 or {GEO_KEYS, GDAL_NODATA} & set(tags):
                return False
            gdals = tags.get(COMPRESSION) in JPEG or tags.get(ORIENTATION, 1) > 1  # Pillow does not always rotate
            if set(tags.get(SAMPLE_FORMAT, (1,))) != {1} or gdals and rasterio_module():
                return False
            for i in range(1, min(getattr(picture, 'n_frames', 1), 8)):
                picture.seek(i)
                if getattr(picture, 'tag_v2', {}).get(SUBFILE, 0) & MASK:
                    return False
            return True
    except Exception:  # a broken file makes Pillow raise anything
        return False


def orientation_of(file: Path | bytes) -> int:
    """Return the orientation tag of a TIFF, 1 to 8, which GDAL ignores."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
            return int(getattr(picture, 'tag_v2', {}).get(ORIENTATION, 1))
    except Exception:  # a broken or unknown file makes Pillow raise anything
        return 1


def apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and flip an image (H, W, ...) by its EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])


def _loses_bits(file: Path | io.BytesIO) -> bool:
    """Whether Pillow reduces more than 8 bits to 8."""
    with Image.open(file) as picture:
        return picture.mode == 'RGB' and max(getattr(picture, 'tag_v2', {}).get(BITS, (8,))) > 8


def open_picture(file: Path | io.BytesIO) -> Image.Image:
    """Open a file of one of `FORMATS`, reading only its header; Pillow would run Ghostscript on other formats."""
    Image.init()  # takes a sixth of a second, once: hence not at import
    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])


def _by_pillow(file: Path | io.BytesIO) -> np.ndarray | None:
    """Read uint8 RGB (H, W, 3), or (H, W) of more bits; None if Pillow cannot."""
    try:
        with open_picture(file) as picture:
            picture = ImageOps.exif_transpose(picture)
            if picture.mode in ('I', 'F') or picture.mode.startswith('I;'):
                pixels = np.array(picture)
                return pixels.astype(np.uint16) if picture.format == 'PPM' and picture.mode == 'I' else pixels
            return np.array(picture.convert('RGB'))
    except Exception:  # a broken file makes Pillow raise anything
        return None


def read_label(path: str | Path) -> np.ndarray:
    """Read the values of a label file as uint8 (H, W); of a palette image, its indices.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is no readable picture, has several channels, or values above 255.
    """
    refuse_special(path)
    content = Path(path).read_bytes()
    label = _plain_png(content, 'mono')
    if label is not None:
        return label.reshape(label.shape[:2])
    if broken_png(content):
        raise UsageError(f'{path} ({len(content)} bytes) is not a readable picture: repair or remove it')
    try:
        with open_picture(io.BytesIO(content)) as picture:
            label = np.array(picture)
    except Exception as error:  # a broken file makes Pillow raise anything
        raise UsageError(f'{path} ({len(content)} bytes) is not a readable picture: repair or remove it') from error
    if label.ndim != 2:
        raise UsageError(f'{path} has the shape {label.shape}, expected class indices in one channel')
    if label.max() > 255 or label.min() < 0:
        raise UsageError(f'{path} holds values of {label.min()} to {label.max()}, expected 0 to 255')
    return label.astype(np.uint8, copy=False)


def _decode(content: bytes, flag: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error:  # raised, instead of returning None, if a damaged header declares an enormous picture
        return None


def _plain_png(content: bytes, mode: str) -> np.ndarray | None:
    """Decode a plain PNG of a mode as uint8 (H, W), (H, W, 1) or (H, W, 3); None for anything else."""
    plain = content.startswith(HEAD) and MODES.get(content[24:26]) == mode
    if not plain or any(name in content for name in SPECIAL) or overstated_png(content):
        return None
    if decode_png is None:  # OpenCV is a little faster than Pillow
        usable = mode == 'mono' and not broken_png(content)
        return _decode(content, cv2.IMREAD_UNCHANGED) if usable else None
    width, height = struct.unpack('>II', content[16:24])
    try:
        with as_errors():
            image: np.ndarray = decode_png(content, (height, width), mode)
            return image
    except Exception:  # a broken file: the next decoder reports it
        return None
