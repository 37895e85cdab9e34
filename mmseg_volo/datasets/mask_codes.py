"""Mask files of any kind, read as class indices.

What a pixel holds is its code: the value of a file with one channel (of a palette image its index), 0xRRGGBB of a
coloured one, or whether it is bright.
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
BRIGHT = 128  # and above: the class of a 'binary' mask
UNKNOWN = 65534  # in tables: no class and not ignored
GONE = -(1 << 31)  # code of a pixel without data: what is no number, or where the image has none
FAR = 1 - (1 << 31)  # code of what is near to no class, where the nearest one counts


@dataclass(frozen=True)
class RawMask:
    """A mask file as it is."""

    pixels: np.ndarray  # integers (H, W), or uint8 RGB (H, W, 3)
    palette: np.ndarray | None = None  # uint8 RGB (n, 3) of a palette image
    nodata: int | None = None  # the value that stands for no data, as the file says
    lossy: bool = False  # whether it was compressed with a loss

    def codes(self, kind: str) -> np.ndarray:
        """Integers (H, W), see above.

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
    """Decodes a mask file: a picture, or an array of integers (.npy).

    Raises:
        BadFile: it is missing, unreadable, or holds no integers.
    """
    if path.suffix.lower() == '.npy':
        pixels, palette, nodata, lossy, mode = _array(path), None, None, False, 'array'
    else:
        pixels, palette, nodata, lossy, mode = _picture(path)
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


def _picture(path: Path) -> tuple[np.ndarray, np.ndarray | None, int | None, bool, str]:
    """The fields of a `RawMask`, and the mode of the picture."""
    try:
        picture = decoded(path)
    except BadFileError as error:
        if error.kind == 'missing' or (found := by_gdal(path)) is None:
            raise
        pixels, nodata = found
        return pixels, None, nodata, False, 'a raster'
    mode, palette = picture.mode, None
    nodata, lossy = nodata_of(picture), is_lossy(picture, path)
    if mode in ('CMYK', 'YCbCr', 'PA', 'HSV', 'LAB'):
        picture = picture.convert('RGB')
    if mode == 'P':
        palette = np.array(picture.getpalette('RGB'), np.uint8).reshape(-1, 3)
    return signed(picture), palette, nodata, lossy, mode


def _whole_numbers(pixels: np.ndarray) -> np.ndarray:
    """Floating point as int64, GONE where it is no number or beyond 32 bits; as it is where it has fractions."""
    known = np.abs(pixels) < -GONE  # not of what is no number
    whole = np.where(known, pixels, 0)
    if (whole != np.rint(whole)).any():
        return pixels
    return np.where(known, whole.astype(np.int64), GONE)


def _array(path: Path) -> np.ndarray:
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
    """uint8 (..., 3) RGB -> int32 (...) 0xRRGGBB."""
    wide = colours.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def unpack_colour(code: int) -> tuple[int, int, int]:
    """0xRRGGBB -> (R, G, B)."""
    return code >> 16, code >> 8 & 255, code & 255


def count_codes(codes: np.ndarray) -> dict[int, int]:
    """Code -> pixels; counts runs, as masks are made of areas."""
    flat = codes.ravel()
    if not flat.size:
        return {}
    if flat.dtype == np.uint8:
        found = np.bincount(flat)
        return {int(code): int(found[code]) for code in np.flatnonzero(found)}
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    values, place = np.unique(flat[starts], return_inverse=True)
    sums = np.bincount(place, np.diff(np.append(starts, flat.size)))
    return {int(value): int(n) for value, n in zip(values, sums, strict=True)}


def format_code(code: int, kind: str) -> str:
    """A code as people and `--ignore` write it: `7`, or `128,0,64`."""
    return ','.join(map(str, unpack_colour(code))) if kind == 'colours' else str(code)


def ignore_index(classes: int) -> int:
    """The index of pixels that do not count: 255, where that is a class 65535."""
    return 255 if classes <= 255 else 65535


@dataclass(frozen=True)
class MaskRule:
    """How mask files become class indices.

    Args:
        kind: 'values' (one channel; of palette images the index), 'colours' (RGB; palette images by their colours), or
            'binary' (what has a channel of 128 or more is 1, the rest 0).
        codes: what stands for each class, in their order: values, or (R, G, B).
        ignored: what does not count, beside what is no number.
        nearest: whether other codes stand for what the nearest of these stands for, as in masks that were smoothed or
            compressed with a loss. What is farther away than half of the smallest distance between two is ignored.

    Raises:
        UsageError: the kind is none of these, or a code stands for two things.
    """

    kind: str
    codes: Sequence[Code]
    ignored: Sequence[Code] = ()
    nearest: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f'masks: kind is one of {KINDS}, got {self.kind!r}')
        if len(self._given) < len(self.codes) + len(self.ignored):
            raise UsageError(f'masks: a value or colour stands twice in codes={self.codes} and ignored={self.ignored}')

    @cached_property
    def _given(self) -> Mapping[int, int]:
        plain = lambda code: code if isinstance(code, int) else int(pack_colours(np.array(code)))  # noqa: E731
        rows = {plain(code): i for i, code in enumerate(self.codes)}
        return rows | {plain(code): ignore_index(len(self.codes)) for code in self.ignored}

    @cached_property
    def index(self) -> Mapping[int, int]:
        """Code -> class index, or `ignore_index`."""
        none = ignore_index(len(self.codes))
        return {**self._given, GONE: none, **({FAR: none} if self.nearest else {})}

    @property
    def words(self) -> str:
        """The kind, as tables say it."""
        return f'{self.kind}, the nearest one counts' if self.nearest else self.kind

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(1 << (24 if self.kind == 'colours' else 16), UNKNOWN, np.uint16)
        for code, index in self.index.items():
            if 0 <= code < len(table):
                table[code] = index
        return table

    def place(self, codes: np.ndarray) -> np.ndarray:
        """Codes -> class indices, of the same shape; UNKNOWN of what is no class and not ignored."""
        table = self._table
        inside = (codes >= 0) & (codes < len(table))
        index = table[codes if inside.all() else np.where(inside, codes, 0)]
        for code in np.unique(codes[~inside]).tolist():
            index[codes == code] = self.index.get(code, UNKNOWN)
        if self.nearest and (strange := index == UNKNOWN).any():
            found, where = np.unique(codes[strange], return_inverse=True)
            settled = self._settled(found)
            index[strange] = settled[where.reshape(-1)]
            within = (found >= 0) & (found < len(table))
            table[found[within]] = settled[within]  # the next mask holds them, too
        return index

    def _settled(self, codes: np.ndarray) -> np.ndarray:
        known = np.array([*self._given])
        places, distances = nearest_index(codes, known, self.kind)
        index = np.array([*self._given.values()], np.uint16)[places]
        return np.where(distances <= reach(known, self.kind), index, np.uint16(self.index[FAR]))

    def read(self, path: str | Path) -> np.ndarray:
        """The class indices of a mask file: uint8 (H, W), uint16 beyond 255 classes.

        Raises:
            BadFile: it cannot be read, or holds what is no class; names the file.
        """
        codes = self.codes_of(Path(path))
        index = self.place(codes)
        if (index == UNKNOWN).any():
            raise BadFileError(
                'values', f'{path} holds {self.some(codes[index == UNKNOWN])}, which is no class and not ignored'
            )
        return index.astype(np.uint8 if len(self.codes) <= 255 else np.uint16)

    def codes_of(self, path: Path) -> np.ndarray:
        """The codes (H, W) of a mask file.

        Raises:
            BadFile: it cannot be read, or holds colours where values are expected.
        """
        try:
            return read_raw(path).codes(self.kind)
        except ValueError as error:
            raise error if isinstance(error, BadFileError) else BadFileError('channels', f'{path} {error}') from error

    def some(self, codes: np.ndarray) -> str:
        """The first codes, in words."""
        found = [*count_codes(codes)]
        return ' and '.join(format_code(code, self.kind) for code in found[:3]) + ', ...' * (len(found) > 3)
