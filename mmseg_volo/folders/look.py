"""One look at every image and mask of a folder, before anything is known about its classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmseg_volo.datasets.examine import BadFile, check_size, decoded_image, fault_of, shown_size
from mmseg_volo.datasets.survey import complain
from mmseg_volo.datasets.train_ids import each
from mmseg_volo.errors import UsageError
from mmseg_volo.folders.bands import is_plain, read_bands
from mmseg_volo.folders.masks import BRIGHT, GREY, count, pack, read_raw, unpack

THUMB = 16  # pixels per side of what near duplicates are told by
MANY = 4096  # codes in a mask: no drawing by classes has so many
WAY = 'no training was begun and nothing was written'


@dataclass(frozen=True)
class Facts:
    """What an image and its mask hold."""

    size: tuple[int, int]  # width, height
    turned: bool  # by its EXIF
    channels: int  # 3 for what loading makes RGB
    dtype: str  # 'uint8', 'uint16', ...
    thumb: np.ndarray  # float32 (THUMB, THUMB, 3)
    sums: np.ndarray | None  # float64 (3, channels): pixels, their sum and sum of squares, of what is not plain
    counts: Mapping[int, int] | None  # value or colour of the mask -> pixels; None without a mask
    coloured: bool = False  # whether these are colours
    palette: tuple[int, ...] | None = None  # colours of a palette image's values, up to the highest used

    def recoded(self, kind: str) -> dict[int, int]:
        """`counts` by the codes of a kind, see `masks.py`; those of colours where values are wanted are grey."""
        found: dict[int, int] = {}
        for code, n in (self.counts or {}).items():
            if kind == 'colours' and not self.coloured:
                code = self.palette[code] if self.palette is not None else code * GREY
            elif kind == 'binary' and self.palette is not None:
                code = max(unpack(self.palette[code]))
            elif kind != 'colours' and self.coloured:
                code = max(unpack(code))
            code = int(code >= BRIGHT) if kind == 'binary' else code
            found[code] = found.get(code, 0) + n
        return found


def look_at_all(pairs: Sequence[tuple[Path, Path | None]]) -> list[Facts]:
    """Decodes all images and masks, in threads, with a progress bar.

    Raises:
        UsageError: some cannot be used; names them and says what to do.
    """
    found: dict[tuple, Facts] = {}
    faults: dict[str, list[str]] = {}
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 16))
    for job, result in each(pool, _look, [*pairs], 'looking at all images and masks'):
        if isinstance(result, BadFile):
            faults.setdefault(result.kind, []).append(str(result))
        elif isinstance(result, UsageError):
            raise result
        elif isinstance(result, BaseException):
            faults.setdefault('unreadable', []).append(str(fault_of(job[0], result)))
        else:
            found[job] = result
    complain(dict(faults={kind: sorted(said) for kind, said in faults.items()}), WAY)
    return [found[pair] for pair in pairs]


def _look(image: Path, mask: Path | None) -> Facts:
    if not image.is_file() or is_plain(image):
        picture = decoded_image(image)
        size, turned = shown_size(picture)
        thumb = np.asarray(picture.convert('RGB').resize((THUMB, THUMB), 4), np.float32)  # 4: mean of the boxes
        channels, dtype, sums = 3, 'uint8', None
    else:
        pixels, gone = read_bands(image)
        size, turned, (channels, dtype) = pixels.shape[1::-1], False, (pixels.shape[2], str(pixels.dtype))
        known = np.ones(pixels.shape, bool) if gone is None else ~gone
        wide = np.where(known, pixels, 0).astype(np.float64).reshape(-1, channels)
        sums = np.stack([known.reshape(-1, channels).sum(0), wide.sum(0), (wide**2).sum(0)])
        thumb = _thumb(np.where(known, pixels, 0))
    if mask is None:
        return Facts(size, turned, channels, dtype, thumb, sums, None)
    raw = read_raw(mask)
    coloured = raw.pixels.ndim == 3
    check_size(mask, raw.pixels.shape[1::-1], size, turned)
    counts = count(pack(raw.pixels) if coloured else raw.pixels)
    if len(counts) > MANY:
        raise BadFile(
            'values', f'{mask} holds {len(counts)} different {"colours" if coloured else "values"}: is it a photo?'
        )
    palette = None
    if raw.palette is not None:
        palette = tuple(pack(raw.palette).tolist()[: max(counts) + 1])
        palette += (0,) * (max(counts) + 1 - len(palette))
    return Facts(size, turned, channels, dtype, thumb, sums, counts, coloured, palette)


def _thumb(pixels: np.ndarray) -> np.ndarray:
    three = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, 2)
    small = cv2.resize(three.astype(np.float32), (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return (small - small.min()) * (255 / max(float(np.ptp(small)), 1e-6))
