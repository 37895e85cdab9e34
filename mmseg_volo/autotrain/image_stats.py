"""One look at every image and mask of a folder, before anything is known about its classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from mmseg_volo.autotrain.alpha_channel import EDGES, VARIES, Alpha, alpha_of
from mmseg_volo.autotrain.code_regions import areas
from mmseg_volo.datasets.check.files import fault_of
from mmseg_volo.datasets.check.survey import raise_if_faulty
from mmseg_volo.datasets.mask_codes import BRIGHT, GONE, GREY, count_codes, pack_colours, read_raw, unpack_colour
from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.io.decoding import check_size, decoded_image, shown_size
from mmseg_volo.io.multiband import is_plain, read_bands, sums_of
from mmseg_volo.utils.parallel import map_parallel

THUMB = 16  # pixels per side of what near duplicates are told by
MANY = 4096  # codes in a mask: no drawing by classes has so many
ANY = 1 << 24  # where all classes are named by their codes
WAY = 'no training was begun and nothing was written'


@dataclass(frozen=True)
class ImageStats:
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
    cores: Mapping[int, int] = field(default_factory=dict)  # value or colour -> pixels inside its areas
    borders: Mapping[int, int] = field(default_factory=dict)  # and pixels between two others, of what has no areas
    nodata: int | None = None  # the value that stands for no data, as the mask's file says
    lossy: bool = False  # whether the mask was compressed with a loss
    alpha: Alpha | None = None  # of an image with a channel that is called so

    def counts_as(self, kind: str, pixels: Mapping[int, int] | None = None) -> dict[int, int]:
        """Pixels of the mask, those of `counts` if None, by the codes of a kind, see `masks.py`.

        Colours where values are wanted are grey.
        """
        found: dict[int, int] = {}
        for code, n in ((self.counts or {}) if pixels is None else pixels).items():
            code = code if code == GONE else self._recoded(code, kind)
            found[code] = found.get(code, 0) + n
        return found

    def _recoded(self, code: int, kind: str) -> int:
        if kind == 'colours' and not self.coloured:
            return self.palette[code] if self.palette is not None else code * GREY
        if kind == 'binary' and self.palette is not None:
            code = max(unpack_colour(self.palette[code]))
        elif kind != 'colours' and self.coloured:
            code = max(unpack_colour(code))
        return int(code >= BRIGHT) if kind == 'binary' else code


def collect_stats(pairs: Sequence[tuple[Path, Path | None]], many: int = MANY) -> list[ImageStats]:
    """Decodes all images and masks, in threads, with a progress bar.

    Args:
        pairs: images and their masks.
        many: codes that a mask may hold.

    Raises:
        UsageError: some cannot be used; names them and says what to do.
    """
    found: dict[tuple, ImageStats] = {}
    faults: dict[str, list[str]] = {}
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 16))
    for job, result in map_parallel(pool, partial(_pair_stats, many=many), [*pairs], 'looking at all images and masks'):
        if isinstance(result, BadFileError):
            faults.setdefault(result.kind, []).append(str(result))
        elif isinstance(result, UsageError):
            raise result
        elif isinstance(result, BaseException):
            faults.setdefault('unreadable', []).append(str(fault_of(job[0], result)))
        else:
            found[job] = result
    raise_if_faulty(dict(faults={kind: sorted(said) for kind, said in faults.items()}), WAY)
    return [found[pair] for pair in pairs]


def _pair_stats(image: Path, mask: Path | None, many: int) -> ImageStats:
    seen, gone = _image_stats(image)
    return seen if mask is None else _with_mask_stats(mask, seen, gone, many)


def _image_stats(image: Path) -> tuple[ImageStats, np.ndarray | None]:
    """What it holds, and bool (H, W): where it has no data in any channel."""
    if not image.is_file() or is_plain(image):
        picture = decoded_image(image)
        size, turned = shown_size(picture)
        thumb = np.asarray(picture.convert('RGB').resize((THUMB, THUMB), 4), np.float32)  # 4: mean of the boxes
        return ImageStats(size, turned, 3, 'uint8', thumb, None, None, alpha=alpha_of(image, picture)), None
    pixels, gone = read_bands(image)
    known = np.ones(pixels.shape, bool) if gone is None else ~gone
    thumb = _thumb(np.where(known, pixels, 0))
    facts = ImageStats(
        pixels.shape[1::-1], False, pixels.shape[2], str(pixels.dtype), thumb, sums_of(pixels, known), None
    )
    return facts, None if gone is None else gone.all(2)


def _with_mask_stats(mask: Path, seen: ImageStats, gone: np.ndarray | None, many: int) -> ImageStats:
    raw = read_raw(mask)
    coloured = raw.pixels.ndim == 3
    check_size(mask, raw.pixels.shape[1::-1], seen.size, seen.turned)
    codes = pack_colours(raw.pixels) if coloured else raw.pixels
    if gone is not None:
        codes = np.where(gone, np.int64(GONE), codes)
    counts = count_codes(codes)
    if len(counts) > many:
        what = 'colours' if coloured else 'values'
        raise BadFileError(
            'values',
            f'{mask} holds {len(counts)} different {what}: is it a photo? Where it was saved with a loss, as JPEG, '
            f'--classes NAME={"R,G,B" if coloured else "VALUE"} ... says which {what} are meant',
        )
    palette = None
    if raw.palette is not None:
        highest = max(0, max(counts) + 1)
        palette = tuple(pack_colours(raw.palette).tolist()[:highest])
        palette += (0,) * (highest - len(palette))
    cores, borders = areas(codes, raw.pixels if coloured else None, counts)
    return replace(
        seen,
        counts=counts,
        coloured=coloured,
        palette=palette,
        cores=cores,
        borders=borders,
        nodata=raw.nodata,
        lossy=raw.lossy,
    )


def _thumb(pixels: np.ndarray) -> np.ndarray:
    three = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, 2)
    small = cv2.resize(three.astype(np.float32), (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return (small - small.min()) * (255 / max(float(np.ptp(small)), 1e-6))


def settle_alpha(facts: Sequence[ImageStats], paths: Sequence[Path]) -> tuple[list[ImageStats], list[str]]:
    """Decides for all images whether the last channel is alpha.

    Args:
        facts: of all images.
        paths: theirs.

    Returns:
        The facts, of images with one channel more if it is none, and notes.

    Raises:
        UsageError: it is none, and takes rasterio to read.
    """
    found = [fact.alpha for fact in facts if fact.alpha is not None]
    if not found:
        return [*facts], []
    partial = float(np.mean([alpha.partial for alpha in found]))
    channels = found[0].sums.shape[1]
    said = f'channel {channels} is called alpha by {len(found)} of {len(facts)} images'
    share = f'{100 * partial:.0f} % of its pixels are neither 0 nor 255'
    if len(found) < len(facts) or partial <= VARIES or any(alpha.sums.shape[1] != channels for alpha in found):
        note = f'{said}, and left out, though {share}: to train on it, save all images without calling it so'
        return [*facts], [note] if partial > EDGES else []
    read_bands(paths[0])
    few = sum(alpha.partial <= EDGES for alpha in found)
    note = f'{said}, but varies as near infrared, heat or depth do ({share}): used as a channel'
    note += f', also of {few} images in which it is 0 or 255 nearly everywhere' * bool(few)
    return [replace(fact, channels=channels, sums=fact.alpha.sums) for fact in facts if fact.alpha is not None], [note]
