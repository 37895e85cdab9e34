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

from mmseg_volo.datasets.examine import BadFile, decoded
from mmseg_volo.errors import UsageError
from mmseg_volo.files import refuse_special
from mmseg_volo.folders.lists import Code

KINDS = ('values', 'colours', 'binary')
GREY = 0x010101  # code of a grey colour / its value
BRIGHT = 128  # and above: the class of a 'binary' mask
UNKNOWN = 65534  # in tables: no class and not ignored


@dataclass(frozen=True)
class RawMask:
    """A mask file as it is."""

    pixels: np.ndarray  # integers (H, W), or uint8 RGB (H, W, 3)
    palette: np.ndarray | None = None  # uint8 RGB (n, 3) of a palette image

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
                return pack(pixels)
            return pack(self.palette)[pixels] if self.palette is not None else pixels.astype(np.int32) * GREY
        if pixels.ndim == 3:
            if kind == 'values' and not ((pixels[..., 0] == pixels[..., 1]) & (pixels[..., 1] == pixels[..., 2])).all():
                raise ValueError('has colours, expected class indices in one channel')
            pixels = pixels.max(2)
        elif kind == 'binary' and self.palette is not None:
            pixels = self.palette.max(1)[pixels]
        return pixels if kind == 'values' else (pixels >= BRIGHT).astype(np.uint8)


def read_raw(path: Path) -> RawMask:
    """Decodes a mask file: a picture, or an array of integers (.npy).

    Raises:
        BadFile: it is missing, unreadable, or holds no integers.
    """
    if path.suffix.lower() == '.npy':
        pixels, palette, mode = _array(path), None, 'array'
    else:
        picture = decoded(path)
        mode, palette = picture.mode, None
        if mode in ('CMYK', 'YCbCr', 'PA', 'HSV', 'LAB'):
            picture = picture.convert('RGB')
        if mode == 'P':
            palette = np.array(picture.getpalette('RGB'), np.uint8).reshape(-1, 3)
        pixels = np.asarray(picture)
    if mode == 'LA':
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] == 4 and pixels.dtype == np.uint8:
        pixels = pixels[..., :3]
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind == 'f' and (pixels == np.rint(pixels)).all():
        pixels = pixels.astype(np.int64)
    coloured = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    if pixels.dtype.kind not in 'iu' or not (pixels.ndim == 2 or coloured):
        raise BadFile('channels', f'{path} is {mode}, {pixels.dtype} of the shape {pixels.shape}')
    if pixels.ndim == 2 and pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
        raise BadFile('values', f'{path} holds values from {pixels.min()} to {pixels.max()}, expected 0 to 65535')
    return RawMask(pixels, palette)


def _array(path: Path) -> np.ndarray:
    try:
        refuse_special(path)
        pixels = np.load(path, allow_pickle=False)
        if not isinstance(pixels, np.ndarray):
            raise ValueError('it is an archive of arrays')
        return pixels
    except FileNotFoundError:
        raise BadFile('missing', f'{path} is missing') from None
    except Exception as error:  # whatever a broken file makes NumPy raise
        raise BadFile('unreadable', f'{path} is no readable array ({error})') from error


def pack(colours: np.ndarray) -> np.ndarray:
    """uint8 (..., 3) RGB -> int32 (...) 0xRRGGBB."""
    wide = colours.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def unpack(code: int) -> tuple[int, int, int]:
    """0xRRGGBB -> (R, G, B)."""
    return code >> 16, code >> 8 & 255, code & 255


def count(codes: np.ndarray) -> dict[int, int]:
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


def shown(code: int, kind: str) -> str:
    """A code as people and `--ignore` write it: `7`, or `128,0,64`."""
    return ','.join(map(str, unpack(code))) if kind == 'colours' else str(code)


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
        ignored: what does not count.

    Raises:
        UsageError: the kind is none of these, or a code stands for two things.
    """

    kind: str
    codes: Sequence[Code]
    ignored: Sequence[Code] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f'masks: kind is one of {KINDS}, got {self.kind!r}')
        if len(self.index) < len(self.codes) + len(self.ignored):
            raise UsageError(f'masks: a value or colour stands twice in codes={self.codes} and ignored={self.ignored}')

    @cached_property
    def index(self) -> Mapping[int, int]:
        """Code -> class index, or `ignore_index`."""
        plain = lambda code: code if isinstance(code, int) else int(pack(np.array(code)))  # noqa: E731
        rows = {plain(code): i for i, code in enumerate(self.codes)}
        return rows | {plain(code): ignore_index(len(self.codes)) for code in self.ignored}

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(1 << (24 if self.kind == 'colours' else 16), UNKNOWN, np.uint16)
        table[[*self.index]] = [*self.index.values()]
        return table

    def read(self, path: str | Path) -> np.ndarray:
        """The class indices of a mask file: uint8 (H, W), uint16 beyond 255 classes.

        Raises:
            BadFile: it cannot be read, or holds what is no class; names the file.
        """
        try:
            codes = read_raw(Path(path)).codes(self.kind)
        except ValueError as error:
            raise error if isinstance(error, BadFile) else BadFile('channels', f'{path} {error}') from error
        index = self._table[codes]
        if (index == UNKNOWN).any():
            strange = [*count(codes[index == UNKNOWN])]
            few = ' and '.join(shown(code, self.kind) for code in strange[:3]) + ', ...' * (len(strange) > 3)
            raise BadFile('values', f'{path} holds {few}, which is no class and not ignored')
        return index.astype(np.uint8 if len(self.codes) <= 255 else np.uint16)
