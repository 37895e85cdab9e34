"""What the page shows: one pass of the network per image, any number of views of what it found."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch import nn

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.api import predict
from mmseg_volo.io.convert import to_rgb
from mmseg_volo.io.image_size import sizes_of
from mmseg_volo.io.steps import MULTI_BAND_STEPS
from mmseg_volo.visualization import overlay

SHOWN_SIDE = 1600  # pixels: larger pictures are shown smaller; areas and masks are of the whole image
AT_ONCE = 1024 * 1024  # pixels that a network which sees images whole is shown at once
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
class Segmentation:
    """An image and what the network says about it."""

    name: str
    picture: np.ndarray  # (h, w, 3) uint8 RGB, at most SHOWN_SIDE pixels a side
    mask: np.ndarray  # (H, W) class indices, of the image's own size; see `predict` for where it has no data
    confidence: np.ndarray  # (H, W) uint8: the probability of that class in per cent, rounded down; 0 without data
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    windows: int | None = None  # side in pixels of what the network saw at a time; None if that is its own


@dataclass(frozen=True)
class RenderedView:
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
    _check_size(path, _size(path, limits), limits)
    with _by_name(path):
        image = to_rgb(path)  # it says what it is, if it is no picture
    _check_size(path, image.shape[1::-1], limits)
    return image


def _check_size(path: Path, size: Sequence[int] | None, limits: Limits) -> None:
    if size is not None and size[0] * size[1] > limits.megapixels * 10**6:
        raise UsageError(
            f'{path.name} has {size[0]}x{size[1]} pixels, at most {limits.megapixels} million are taken: reduce it, '
            f'or use mmseg-volo predict, which takes any size'
        )


def _size(path: Path, limits: Limits) -> tuple[int, int] | None:
    """Width and height in pixels, by the head of a file, the most that one of the libraries reads there; None if it
    is of no kind that is decoded."""
    try:
        return max(sizes_of(path), key=lambda size: size[0] * size[1], default=None)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the latter where warnings are errors
        least = min(limits.megapixels, (Image.MAX_IMAGE_PIXELS or 0) // 10**6)
        raise UsageError(f'{path.name} has more than {least} million pixels: reduce it') from None


@contextmanager
def _by_name(path: Path) -> Iterator[None]:
    """Inside, what is wrong with a file is said without its folder."""
    try:
        yield
    except UsageError as error:
        said = str(error).replace(str(path), path.name)
        more = ', an option of mmseg-volo predict' if ' --' in said else ''
        raise UsageError(f'{said}{more}') from error


def refuse_bands(model: nn.Module) -> None:
    """Raises:
    UsageError: the model is for other images than RGB, which the page cannot show.
    """
    if model.cfg.test_pipeline[0]['type'] in MULTI_BAND_STEPS:
        raise UsageError(
            'the model was trained on the bands of files as they are, and the demo is for models of RGB images: '
            'use mmseg-volo predict'
        )


def is_large(image: np.ndarray) -> bool:
    """Whether the network takes its time for an image (H, W, 3)."""
    return image.shape[0] * image.shape[1] > AT_ONCE


def segment(model: nn.Module, path: str | Path, image: np.ndarray) -> Segmentation:
    """Runs the network on an uploaded file, as `mmseg_volo.predict` does; a large one it sees through windows.

    Args:
        model: from `mmseg_volo.load`, for RGB images.
        path: of the file.
        image: what `open_upload` gives of it.

    Raises:
        UsageError: it is none for this network.
    """
    path = Path(path)
    with _by_name(path):
        windows = _windows(model) if is_large(image) else None
        found = predict(model, path, maps=['confidence'], windows=windows, tell=lambda text: None)  # it is told already
    confidence = np.nan_to_num(100 * found.confidence).clip(0, 100).astype(np.uint8)
    scale = min(1.0, SHOWN_SIDE / max(image.shape[:2]))
    if scale < 1:
        size = [max(1, round(n * scale)) for n in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Segmentation(path.name, image, found.mask, confidence, found.classes, found.palette, windows)


def _windows(model: nn.Module) -> int | None:
    """Side of windows in place of a network's view of whole images, which takes a time that grows with their square."""
    from mmseg_volo.inference.segment import trained_on, why_whole

    sees_parts = why_whole(model, model.cfg.test_pipeline) or model.options.mode == 'slide'
    return None if sees_parts else trained_on(model)


def view(found: Segmentation, chosen: Collection[str], opacity: float, least: int) -> RenderedView:
    """Lays the classes over the image.

    Args:
        chosen: names of classes to show; all if there are none.
        opacity: 0 shows the image alone, 1 the colours alone.
        least: pixels with less confidence, in per cent, are left out.
    """
    count = len(found.classes)
    out = count  # the value behind the classes: no class
    wide = np.uint8 if count <= 255 else np.uint16
    shown = [i if not chosen or name in chosen else out for i, name in enumerate(found.classes)]
    mask = np.array([*shown, out], np.uint16)[np.minimum(found.mask, np.uint16(out))]
    mask[found.confidence < least] = out
    counts = np.bincount(mask.ravel(), minlength=count + 1)[:count]
    areas = {int(i): int(counts[i]) for i in np.argsort(-counts, kind='stable') if counts[i]}
    height, width = found.picture.shape[:2]
    shown = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    picture = overlay(found.picture, shown, found.palette, opacity)
    picture[shown == out] = found.picture[shown == out]
    mask[mask == out] = np.iinfo(wide).max
    return RenderedView(picture, mask.astype(wide), areas)


def areas_table(found: Segmentation, areas: Mapping[int, int]) -> str:
    """The areas as an HTML table with the colours of the classes, as shares of the pixels that have data."""
    total = int((found.mask < len(found.classes)).sum())
    rows = []
    for i, pixels in areas.items():
        chip = f'<span class="chip" style="background:rgb{tuple(int(c) for c in found.palette[i])}"></span>'
        share = f'{100 * pixels / total:.1f} %'
        rows.append(f'<tr><td>{chip}{escape(found.classes[i])}</td><td>{share}</td><td>{pixels:,}</td></tr>')
    if left := total - sum(areas.values()):
        rows.append(f'<tr class="left"><td>left out</td><td>{100 * left / total:.1f} %</td><td>{left:,}</td></tr>')
    if gone := found.mask.size - total:
        rows.append(f'<tr class="left"><td>no data</td><td></td><td>{gone:,}</td></tr>')
    return f'<table class="areas"><tr><th>Class</th><th>Area</th><th>Pixels</th></tr>{"".join(rows)}</table>'
