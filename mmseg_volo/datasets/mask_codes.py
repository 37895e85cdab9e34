"""Read mask files of any kind as class indices.

The code of a pixel is its value in a file with one channel (its index in a palette image), 0xRRGGBB in a coloured one,
or whether it is bright in a binary one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mmseg_volo.datasets.lists import Code
from mmseg_volo.datasets.nearest_code import nearest_index, reach
from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.io.decoding import decoded
from mmseg_volo.io.mask_storage import by_gdal, is_lossy, nodata_of, signed
from mmseg_volo.utils.files import refuse_special

KINDS = ('values', 'colours', 'binary')
GREY = 0x010101  # code of a grey colour / its value
BRIGHT = 128  # values from here on are class 1 of a 'binary' mask
UNKNOWN = 65534  # index of codes that are neither a class nor ignored
GONE = -(1 << 31)  # code of a pixel without data: NaN in the mask, or no data in the image
FAR = 1 - (1 << 31)  # with `nearest`: code of a pixel that is near to no class


@dataclass(frozen=True)
class RawMask:
    """Hold a mask file as stored."""

    pixels: np.ndarray  # integers (H, W), or uint8 RGB (H, W, 3)
    palette: np.ndarray | None = None  # uint8 RGB (n, 3) of a palette image
    nodata: int | None = None  # the value that the file declares as no data
    lossy: bool = False  # whether its compression is lossy

    def codes(self, kind: str) -> np.ndarray:
        """Return the code of each pixel, integers (H, W); see the module.

        Args:
            kind: 'values', 'colours' or 'binary'.

        Raises:
            ValueError: it has colours where values are expected.
        """
        pixels = self.pixels
        if kind == 'colours':
            if pixels.ndim == 3:
                return pack_colours(pixels)
            if self.palette is not None:
                return pack_colours(self.palette)[pixels]
            return np.where(pixels == GONE, GONE, pixels.astype(np.int64) * GREY)
        if pixels.ndim == 3:
            if kind == 'values' and not ((pixels[..., 0] == pixels[..., 1]) & (pixels[..., 1] == pixels[..., 2])).all():
                raise ValueError('has colours, expected class indices in one channel')
            pixels = pixels.max(2)
        elif kind == 'binary' and self.palette is not None:
            pixels = self.palette.max(1)[pixels]
        if kind == 'values':
            return pixels
        bright = (pixels >= BRIGHT).astype(np.uint8)
        return np.where(pixels == GONE, GONE, bright) if pixels.dtype.kind == 'i' else bright


def read_raw(path: Path) -> RawMask:
    """Decode a mask file: an image, or an array of integers (.npy).

    Raises:
        BadFileError: it is missing, unreadable, or holds no integers.
    """
    if path.suffix.lower() == '.npy':
        pixels, palette, nodata, lossy, mode = _read_array(path), None, None, False, 'array'
    else:
        pixels, palette, nodata, lossy, mode = _read_picture(path)
    if mode == 'LA':
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] == 4 and pixels.dtype == np.uint8:
        pixels = pixels[..., :3]
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind == 'f':
        pixels = _whole_numbers(pixels)
    elif pixels.dtype in (np.int64, np.uint64):
        pixels = np.where((pixels > GONE) & (pixels < 1 << 32), pixels, GONE).astype(np.int64)
    coloured = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    if pixels.dtype.kind not in 'iu' or not (pixels.ndim == 2 or coloured):
        raise BadFileError('channels', f'{path} is {mode}, {pixels.dtype} of the shape {pixels.shape}')
    return RawMask(pixels, palette, nodata, lossy)


def _read_picture(path: Path) -> tuple[np.ndarray, np.ndarray | None, int | None, bool, str]:
    """Return the fields of a `RawMask`, and the mode of the image."""
    try:
        picture = decoded(path)
    except BadFileError as error:
        if error.kind == 'missing' or (raster := by_gdal(path)) is None:
            raise
        pixels, nodata = raster
        return pixels, None, nodata, False, 'a raster'
    mode, palette = picture.mode, None
    nodata, lossy = nodata_of(picture), is_lossy(picture, path)
    if mode in ('CMYK', 'YCbCr', 'PA', 'HSV', 'LAB'):
        picture = picture.convert('RGB')
    if mode == 'P':
        palette = np.array(picture.getpalette('RGB'), np.uint8).reshape(-1, 3)
    return signed(picture), palette, nodata, lossy, mode


def _whole_numbers(pixels: np.ndarray) -> np.ndarray:
    """Convert floats to int64, with GONE for NaN and values beyond 32 bits; unchanged if any has a fraction."""
    known = np.abs(pixels) < -GONE  # False for NaN
    whole = np.where(known, pixels, 0)
    if (whole != np.rint(whole)).any():
        return pixels
    return np.where(known, whole.astype(np.int64), GONE)


def _read_array(path: Path) -> np.ndarray:
    try:
        refuse_special(path)
        pixels = np.load(path, allow_pickle=False)
        if not isinstance(pixels, np.ndarray):
            raise ValueError('it is an archive of arrays')
        return pixels
    except FileNotFoundError:
        raise BadFileError('missing', f'{path} is missing') from None
    except Exception as error:  # whatever a broken file makes NumPy raise
        raise BadFileError('unreadable', f'{path} is no readable array ({error})') from error


def pack_colours(colours: np.ndarray) -> np.ndarray:
    """Pack uint8 (..., 3) RGB into int32 (...) 0xRRGGBB."""
    wide = colours.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def unpack_colour(code: int) -> tuple[int, int, int]:
    """Unpack 0xRRGGBB into (R, G, B)."""
    return code >> 16, code >> 8 & 255, code & 255


def count_codes(codes: np.ndarray) -> dict[int, int]:
    """Count the pixels of each code, by runs of equal codes: faster than by pixels, as masks are made of areas."""
    flat = codes.ravel()
    if not flat.size:
        return {}
    if flat.dtype == np.uint8:
        counts = np.bincount(flat)
        return {int(code): int(counts[code]) for code in np.flatnonzero(counts)}
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    values, inverse = np.unique(flat[starts], return_inverse=True)
    sums = np.bincount(inverse, np.diff(np.append(starts, flat.size)))
    return {int(value): int(n) for value, n in zip(values, sums, strict=True)}


def format_code(code: int, kind: str) -> str:
    """Format a code as `--ignore` takes it: `7`, or `128,0,64`."""
    return ','.join(map(str, unpack_colour(code))) if kind == 'colours' else str(code)


def ignore_index(classes: int) -> int:
    """Return the index of ignored pixels: 255, or 65535 if 255 is a class."""
    return 255 if classes <= 255 else 65535


@dataclass(frozen=True)
class MaskRule:
    """Map the codes of mask files to class indices.

    Args:
        kind: 'values' (one channel; the index in palette images), 'colours' (RGB; palette images by their colours), or
            'binary' (1 where any channel is at least 128, else 0).
        codes: code of each class, in their order: values, or (R, G, B).
        ignored: codes that are ignored, as NaN always is.
        nearest: whether any other code counts as the nearest of these, for masks that were smoothed or compressed with
            a loss. Codes farther away than half of the smallest distance between two of these are ignored.

    Raises:
        UsageError: the kind is none of these, or a code occurs twice.
    """

    kind: str
    codes: Sequence[Code]
    ignored: Sequence[Code] = ()
    nearest: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f'masks: kind is one of {KINDS}, got {self.kind!r}')
        if len(self._listed) < len(self.codes) + len(self.ignored):
            raise UsageError(f'masks: a value or colour occurs twice in codes={self.codes} and ignored={self.ignored}')

    @cached_property
    def _listed(self) -> dict[int, int]:
        """Code -> index, of `codes` and `ignored`."""
        plain = lambda code: code if isinstance(code, int) else int(pack_colours(np.array(code)))  # noqa: E731
        classes = {plain(code): i for i, code in enumerate(self.codes)}
        return classes | {plain(code): ignore_index(len(self.codes)) for code in self.ignored}

    @cached_property
    def index(self) -> Mapping[int, int]:
        """Code -> class index, or `ignore_index`."""
        none = ignore_index(len(self.codes))
        return {**self._listed, GONE: none, **({FAR: none} if self.nearest else {})}

    @property
    def words(self) -> str:
        """The kind, as tables print it."""
        return f'{self.kind}, the nearest one counts' if self.nearest else self.kind

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(1 << (24 if self.kind == 'colours' else 16), UNKNOWN, np.uint16)
        for code, index in self.index.items():
            if 0 <= code < len(table):
                table[code] = index
        return table

    def indices_of(self, codes: np.ndarray) -> np.ndarray:
        """Map codes to class indices, uint16 of the same shape; UNKNOWN where neither class nor ignored."""
        table = self._table
        inside = (codes >= 0) & (codes < len(table))
        indices = table[codes if inside.all() else np.where(inside, codes, 0)]
        for code in np.unique(codes[~inside]).tolist():
            indices[codes == code] = self.index.get(code, UNKNOWN)
        if self.nearest and (unknown := indices == UNKNOWN).any():
            values, inverse = np.unique(codes[unknown], return_inverse=True)
            nearest = self._nearest(values)
            indices[unknown] = nearest[inverse.reshape(-1)]
            within = (values >= 0) & (values < len(table))
            table[values[within]] = nearest[within]  # the next masks hold the same codes
        return indices

    def _nearest(self, codes: np.ndarray) -> np.ndarray:
        """Map codes to the index of the nearest known code, or to that of FAR: uint16."""
        known = np.array([*self._listed])
        positions, distances = nearest_index(codes, known, self.kind)
        indices = np.array([*self._listed.values()], np.uint16)[positions]
        return np.where(distances <= reach(known, self.kind), indices, np.uint16(self.index[FAR]))

    def read(self, path: str | Path) -> np.ndarray:
        """Read the class indices of a mask file: uint8 (H, W), uint16 beyond 255 classes.

        Raises:
            BadFileError: it cannot be read, or holds a code that is no class; names the file.
        """
        codes = self.codes_of(Path(path))
        indices = self.indices_of(codes)
        if (indices == UNKNOWN).any():
            raise BadFileError(
                'values', f'{path} holds {self.some(codes[indices == UNKNOWN])}, which is no class and not ignored'
            )
        return indices.astype(np.uint8 if len(self.codes) <= 255 else np.uint16)

    def codes_of(self, path: Path) -> np.ndarray:
        """Read the codes (H, W) of a mask file.

        Raises:
            BadFileError: it cannot be read, or holds colours where values are expected.
        """
        try:
            return read_raw(path).codes(self.kind)
        except ValueError as error:
            raise error if isinstance(error, BadFileError) else BadFileError('channels', f'{path} {error}') from error

    def some(self, codes: np.ndarray) -> str:
        """List the first codes for a message."""
        distinct = [*count_codes(codes)]
        return ' and '.join(format_code(code, self.kind) for code in distinct[:3]) + ', ...' * (len(distinct) > 3)
