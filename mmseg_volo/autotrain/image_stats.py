"""Collect statistics of every image and mask of a folder in one pass, before its classes are known."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmseg_volo.autotrain.alpha_channel import EDGES, VARIES, Alpha, alpha_of
from mmseg_volo.autotrain.code_regions import areas
from mmseg_volo.datasets.check.files import fault_of
from mmseg_volo.datasets.check.survey import raise_if_faulty
from mmseg_volo.datasets.mask_codes import BRIGHT, GONE, GREY, count_codes, pack_colours, read_raw, unpack_colour
from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.io.decoding import check_size, decoded_image, shown_size
from mmseg_volo.io.multiband import is_plain, read_bands, sums_of
from mmseg_volo.utils.parallel import map_parallel

THUMB = 16  # pixels per side of thumbnails, which near duplicates are found by
MANY = 4096  # codes of a mask, above which it is no class map
ANY = 1 << 24  # the same where all classes are named by their codes
WAY = 'no training was started and nothing was written'


@dataclass(frozen=True)
class ImageStats:
    """Statistics of an image and its mask."""

    size: tuple[int, int]  # width, height
    turned: bool  # by its EXIF orientation
    channels: int  # 3 if it is loaded as RGB
    dtype: str  # 'uint8', 'uint16', ...
    thumb: NDArray[np.float32]  # (THUMB, THUMB, 3)
    sums: NDArray[np.float64] | None  # (3, channels): pixels, sum and sum of squares; None for 8-bit RGB
    counts: Mapping[int, int] | None  # value or colour of the mask -> pixels; None without a mask
    coloured: bool = False  # whether the keys are colours
    palette: tuple[int, ...] | None = None  # colours of a palette mask, up to the highest used value
    cores: Mapping[int, int] = field(default_factory=dict)  # value or colour -> pixels inside its areas
    borders: Mapping[int, int] = field(
        default_factory=dict
    )  # the same -> pixels between two others, if it has no areas
    nodata: int | None = None  # nodata value of the mask's file
    lossy: bool = False  # whether the mask was compressed with a loss
    alpha: Alpha | None = None  # of an image whose last channel is labelled alpha

    def counts_as(self, kind: str, pixels: Mapping[int, int] | None = None) -> dict[int, int]:
        """Convert the keys of a pixel count, `counts` by default, to the codes of a kind, see `mask_codes.py`.

        Colours are taken for grey values where values are wanted.
        """
        recoded: dict[int, int] = {}
        for code, n in ((self.counts or {}) if pixels is None else pixels).items():
            code = code if code == GONE else self._recoded(code, kind)
            recoded[code] = recoded.get(code, 0) + n
        return recoded

    def _recoded(self, code: int, kind: str) -> int:
        if kind == 'colours' and not self.coloured:
            return self.palette[code] if self.palette is not None else code * GREY
        if kind == 'binary' and self.palette is not None:
            code = max(unpack_colour(self.palette[code]))
        elif kind != 'colours' and self.coloured:
            code = max(unpack_colour(code))
        return int(code >= BRIGHT) if kind == 'binary' else code


def collect_stats(pairs: Sequence[tuple[Path, Path | None]], many: int = MANY) -> list[ImageStats]:
    """Decode all images and masks in threads, with a progress bar.

    Args:
        pairs: images and their masks.
        many: codes that a mask may hold at most.

    Raises:
        UsageError: files cannot be used; names them and says what to do.
    """
    stats: dict[tuple[Path, Path | None], ImageStats] = {}
    faults: dict[str, list[str]] = {}
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 16))
    for job, result in map_parallel(pool, partial(_pair_stats, many=many), [*pairs], 'reading all images and masks'):
        if isinstance(result, BadFileError):
            faults.setdefault(result.kind, []).append(str(result))
        elif isinstance(result, UsageError):
            raise result
        elif isinstance(result, BaseException):
            faults.setdefault('unreadable', []).append(str(fault_of(job[0], result)))
        else:
            stats[job] = result
    raise_if_faulty(dict(faults={kind: sorted(messages) for kind, messages in faults.items()}), WAY)
    return [stats[pair] for pair in pairs]


def _pair_stats(image: Path, mask: Path | None, many: int) -> ImageStats:
    stats, gone = _image_stats(image)
    return stats if mask is None else _with_mask_stats(mask, stats, gone, many)


def _image_stats(image: Path) -> tuple[ImageStats, NDArray[np.bool_] | None]:
    """Return the statistics of an image, and bool (H, W): pixels without data in all channels."""
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
    return facts, None if gone is None else np.all(gone, axis=2)


def _with_mask_stats(mask: Path, stats: ImageStats, gone: NDArray[np.bool_] | None, many: int) -> ImageStats:
    raw = read_raw(mask)
    coloured = raw.pixels.ndim == 3
    check_size(mask, raw.pixels.shape[1::-1], stats.size, stats.turned)
    codes = pack_colours(raw.pixels) if coloured else raw.pixels
    if gone is not None:
        codes = np.where(gone, np.int64(GONE), codes)
    counts = count_codes(codes)
    if len(counts) > many:
        what = 'colours' if coloured else 'values'
        raise BadFileError(
            'values',
            f'{mask} holds {len(counts)} different {what}: is it a photo? If lossy compression (JPEG) made them, name '
            f'the {what} that are classes: --classes NAME={"R,G,B" if coloured else "VALUE"} ...',
        )
    palette = None
    if raw.palette is not None:
        highest = max(0, max(counts) + 1)
        palette = tuple(pack_colours(raw.palette).tolist()[:highest])
        palette += (0,) * (highest - len(palette))
    cores, borders = areas(codes, raw.pixels if coloured else None, counts)
    return replace(
        stats,
        counts=counts,
        coloured=coloured,
        palette=palette,
        cores=cores,
        borders=borders,
        nodata=raw.nodata,
        lossy=raw.lossy,
    )


def _thumb(pixels: NDArray[Any]) -> NDArray[np.float32]:
    three = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, 2)
    small = cv2.resize(three.astype(np.float32), (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return (small - small.min()) * (255 / max(float(np.ptp(small)), 1e-6))


def settle_alpha(facts: Sequence[ImageStats], paths: Sequence[Path]) -> tuple[list[ImageStats], list[str]]:
    """Decide for all images whether the last channel is alpha or data.

    Args:
        facts: statistics of all images.
        paths: of these images.

    Returns:
        The statistics, with the channel added if it is data, and notes.

    Raises:
        UsageError: it is data, and reading it needs rasterio.
    """
    alphas = [fact.alpha for fact in facts if fact.alpha is not None]
    if not alphas:
        return [*facts], []
    partial = float(np.mean([alpha.partial for alpha in alphas]))
    channels = alphas[0].sums.shape[1]
    label = f'channel {channels} is called alpha by {len(alphas)} of {len(facts)} images'
    share = f'{100 * partial:.0f} % of its pixels are neither 0 nor 255'
    if len(alphas) < len(facts) or partial <= VARIES or any(alpha.sums.shape[1] != channels for alpha in alphas):
        note = f'{label} and left out, though {share}: to train on it, save all images without this label'
        return [*facts], [note] if partial > EDGES else []
    read_bands(paths[0])
    few = sum(alpha.partial <= EDGES for alpha in alphas)
    note = f'{label}, but varies as near infrared, heat or depth do ({share}): used as a channel'
    note += f', also of {few} images in which it is 0 or 255 nearly everywhere' * bool(few)
    return [replace(fact, channels=channels, sums=fact.alpha.sums) for fact in facts if fact.alpha is not None], [note]
