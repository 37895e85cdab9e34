"""A last channel that files call alpha: it is left out, unless it varies as near infrared, heat or depth do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mmseg_volo.folders.bands import read_bands, sums_of
from mmseg_volo.raster_reader import driver_of, rasterio_module

if TYPE_CHECKING:
    from mmseg_volo.folders.look import Facts

VARIES = 0.5  # of all pixels: where so many are neither 0 nor 255, it is a channel
EDGES = 0.05  # of all pixels: so many are the soft edges of what is transparent


@dataclass(frozen=True)
class Alpha:
    """What a file holds whose last channel is called alpha."""

    sums: np.ndarray  # of all channels, see `Facts`
    partial: float  # share of the pixels that are neither 0 nor 255 in the last one


def alpha_of(path: Path, picture: Image.Image) -> Alpha | None:
    """What a file with 2 or 4 channels of bytes holds, if the last is called alpha and loading can give it.

    Args:
        path: of the file.
        picture: the same, decoded.
    """
    with path.open('rb') as file:
        raster = driver_of(file.read(12)) is not None
    if picture.mode not in ('RGBA', 'LA') or not raster and (picture.format != 'PNG' or picture.mode == 'LA'):
        return None
    if raster and rasterio_module() is not None:  # Pillow divides colours by an alpha that they were multiplied with
        pixels = read_bands(path)[0]
    else:
        pixels = np.asarray(picture)
    last = pixels[..., -1]
    partial = float(((last > 0) & (last < 255)).mean())
    return Alpha(sums_of(pixels, np.ones(pixels.shape, bool)), partial)


def settle_alpha(facts: Sequence[Facts], paths: Sequence[Path]) -> tuple[list[Facts], list[str]]:
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
