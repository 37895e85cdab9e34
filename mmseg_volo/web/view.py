"""What the page shows: one pass of the network per image, any number of views of what it found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch import nn

from mmseg_volo.apis import predict
from mmseg_volo.draw import overlay
from mmseg_volo.errors import UsageError
from mmseg_volo.images import as_rgb
from mmseg_volo.kinds import PICTURES

SHOWN_SIDE = 1600  # pixels: larger pictures are shown smaller; areas and masks are of the whole image

MOST_MEGAPIXELS = 178  # what Pillow opens at all


@dataclass(frozen=True)
class Limits:
    """What may be uploaded."""

    megabytes: int = 20
    megapixels: int = 40

    def __post_init__(self) -> None:
        if self.megabytes < 1 or not 1 <= self.megapixels <= MOST_MEGAPIXELS:
            raise UsageError(
                f'expected limits of uploads of 1 MB or more and of 1 to {MOST_MEGAPIXELS} million pixels, got '
                f'{self.megabytes} MB and {self.megapixels} million pixels; mmseg-volo predict takes any size'
            )


@dataclass(frozen=True)
class Found:
    """An image and what the network says about it."""

    name: str
    picture: np.ndarray  # (h, w, 3) uint8 RGB, at most SHOWN_SIDE pixels a side
    mask: np.ndarray  # (H, W) class indices, of the image's own size
    confidence: np.ndarray  # (H, W) uint8: the probability of that class in per cent, rounded down
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]


@dataclass(frozen=True)
class View:
    """A found image as the sliders want it."""

    picture: np.ndarray  # (h, w, 3) uint8 RGB
    mask: np.ndarray  # (H, W) class indices; the largest number of its dtype where a pixel is left out
    areas: Mapping[int, int]  # pixels of each class that is shown and occurs, the largest first


def open_upload(path: str | Path, limits: Limits) -> np.ndarray:
    """An uploaded file as uint8 RGB (H, W, 3). How large it is, is known before it is decoded.

    Raises:
        UsageError: it is no readable picture, or too large.
    """
    path = Path(path)
    if (size := path.stat().st_size) > limits.megabytes * 10**6:
        raise UsageError(f'{path.name} has {size / 1e6:.1f} MB, at most {limits.megabytes} MB are taken: reduce it')
    try:
        with Image.open(path) as header:
            width, height = header.size
    except Image.DecompressionBombError:
        raise UsageError(f'{path.name} has more than {limits.megapixels} million pixels: reduce it') from None
    except Exception as error:  # whatever a broken file makes Pillow raise
        kinds = f'{", ".join([*PICTURES][:-1])} or {[*PICTURES][-1]}'
        raise UsageError(f'{path.name} is not a readable picture: take a {kinds} file') from error
    if width * height > limits.megapixels * 10**6:
        raise UsageError(
            f'{path.name} has {width}x{height} pixels, at most {limits.megapixels} million are taken: reduce it, '
            f'or use mmseg-volo predict, which takes any size'
        )
    try:
        return as_rgb(path)
    except UsageError as error:
        raise UsageError(str(error).replace(str(path), path.name)) from error


def segment(model: nn.Module, path: str | Path, limits: Limits) -> Found:
    """Runs the network on an uploaded file.

    Args:
        model: from `mmseg_volo.load`.

    Raises:
        UsageError: see `open_upload`.
    """
    image = open_upload(path, limits)
    found = predict(model, image, maps=['confidence'])
    confidence = (100 * found.confidence).clip(0, 100).astype(np.uint8)
    scale = min(1.0, SHOWN_SIDE / max(image.shape[:2]))
    if scale < 1:
        size = [max(1, round(n * scale)) for n in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Found(Path(path).name, image, found.mask, confidence, found.classes, found.palette)


def view(found: Found, chosen: Collection[str], opacity: float, least: int) -> View:
    """Lays the classes over the image.

    Args:
        chosen: names of classes to show; all if there are none.
        opacity: 0 shows the image alone, 1 the colours alone.
        least: pixels with less confidence, in per cent, are left out.
    """
    count = len(found.classes)
    out = count  # the value behind the classes: no class
    wide = np.uint8 if count <= 255 else np.uint16
    table = np.array([i if not chosen or name in chosen else out for i, name in enumerate(found.classes)], np.uint16)
    mask = table[found.mask]
    mask[found.confidence < least] = out
    counts = np.bincount(mask.ravel(), minlength=count + 1)[:count]
    areas = {int(i): int(counts[i]) for i in np.argsort(-counts, kind='stable') if counts[i]}
    height, width = found.picture.shape[:2]
    shown = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    picture = overlay(found.picture, shown, found.palette, opacity)
    picture[shown == out] = found.picture[shown == out]
    mask[mask == out] = np.iinfo(wide).max
    return View(picture, mask.astype(wide), areas)


def areas_table(found: Found, areas: Mapping[int, int]) -> str:
    """The areas as an HTML table with the colours of the classes."""
    total = found.mask.size
    rows = []
    for i, pixels in areas.items():
        chip = f'<span class="chip" style="background:rgb{tuple(int(c) for c in found.palette[i])}"></span>'
        share = f'{100 * pixels / total:.1f} %'
        rows.append(f'<tr><td>{chip}{escape(found.classes[i])}</td><td>{share}</td><td>{pixels:,}</td></tr>')
    if left := total - sum(areas.values()):
        rows.append(f'<tr class="left"><td>left out</td><td>{100 * left / total:.1f} %</td><td>{left:,}</td></tr>')
    return f'<table class="areas"><tr><th>Class</th><th>Area</th><th>Pixels</th></tr>{"".join(rows)}</table>'
