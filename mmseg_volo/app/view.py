"""Segment an upload once, and draw any number of views of the result."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.api import predict
from mmseg_volo.io.convert import to_rgb
from mmseg_volo.io.image_size import sizes_of
from mmseg_volo.io.steps import MULTI_BAND_STEPS
from mmseg_volo.visualization import overlay

if TYPE_CHECKING:
    from mmseg.models import BaseSegmentor

SHOWN_SIDE = 1600  # pixels: larger pictures are scaled down; areas and masks keep the size of the image
AT_ONCE = 1024 * 1024  # most pixels of an image that is predicted whole, without windows
MOST_MEGAPIXELS = 178  # Pillow opens no larger images


@dataclass(frozen=True)
class Limits:
    """Limits of an upload."""

    megabytes: int = 20
    megapixels: int = 40

    def __post_init__(self) -> None:
        if self.megabytes < 1 or not 1 <= self.megapixels <= MOST_MEGAPIXELS:
            raise UsageError(
                f'the limits of uploads must be at least 1 MB, and 1 to {MOST_MEGAPIXELS} million pixels, got '
                f'{self.megabytes} MB and {self.megapixels} million pixels; mmseg-volo predict takes any size'
            )


@dataclass(frozen=True)
class Segmentation:
    """An image and its prediction."""

    name: str
    picture: NDArray[np.uint8]  # (h, w, 3) RGB, at most SHOWN_SIDE pixels a side
    mask: NDArray[Any]  # (H, W) class indices, of the image's own size; `predict` tells their value without data
    confidence: NDArray[np.uint8]  # (H, W) probability of that class in per cent, rounded down; 0 without data
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    windows: int | None = None  # side in pixels of the windows; None if the model's own settings apply


@dataclass(frozen=True)
class RenderedView:
    """A segmentation as the page shows it."""

    picture: NDArray[np.uint8]  # (h, w, 3) RGB
    mask: NDArray[Any]  # (H, W) class indices; the largest value of its dtype where a pixel is hidden
    areas: Mapping[int, int]  # pixels of each class that is shown and present, the largest first


def open_upload(path: str | Path, limits: Limits) -> NDArray[np.uint8]:
    """Read an upload as uint8 RGB (H, W, 3), after checking its size.

    Raises:
        UsageError: it is not a readable picture, or too large.
    """
    path = Path(path)
    if (size := path.stat().st_size) > limits.megabytes * 10**6:
        raise UsageError(f'{path.name} has {size / 1e6:.1f} MB, the limit is {limits.megabytes} MB: reduce it')
    _check_size(path, _size(path, limits), limits)
    with _by_name(path):
        image = to_rgb(path)  # its error names the kind of a file that is not a picture
    _check_size(path, image.shape[1::-1], limits)
    return image


def _check_size(path: Path, size: Sequence[int] | None, limits: Limits) -> None:
    if size is not None and size[0] * size[1] > limits.megapixels * 10**6:
        raise UsageError(
            f'{path.name} has {size[0]}x{size[1]} pixels, the limit is {limits.megapixels} million: reduce it, '
            f'or use mmseg-volo predict, which takes any size'
        )


def _size(path: Path, limits: Limits) -> tuple[int, int] | None:
    """Return width and height from the header of a file, the largest that any library reads; None for other files."""
    try:
        return max(sizes_of(path), key=lambda size: size[0] * size[1], default=None)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the latter where warnings are errors
        least = min(limits.megapixels, (Image.MAX_IMAGE_PIXELS or 0) // 10**6)
        raise UsageError(f'{path.name} has more than {least} million pixels: reduce it') from None


@contextmanager
def _by_name(path: Path) -> Iterator[None]:
    """Remove the folder of a file from the messages of UsageErrors."""
    try:
        yield
    except UsageError as error:
        message = str(error).replace(str(path), path.name)
        more = ', an option of mmseg-volo predict' if ' --' in message else ''
        raise UsageError(f'{message}{more}') from error


def refuse_bands(model: BaseSegmentor) -> None:
    """Refuse a model of multi-band images, which the page cannot show.

    Raises:
        UsageError: the model does not take RGB images.
    """
    if model.cfg.test_pipeline[0]['type'] in MULTI_BAND_STEPS:
        raise UsageError(
            'the model was trained on multi-band images, but mmseg-volo app takes models of RGB images only: use '
            'mmseg-volo predict'
        )


def is_large(image: NDArray[np.uint8]) -> bool:
    """Return whether an image (H, W, 3) is predicted in windows, which takes longer."""
    return image.shape[0] * image.shape[1] > AT_ONCE


def segment(model: BaseSegmentor, path: str | Path, image: NDArray[np.uint8]) -> Segmentation:
    """Segment an upload, as `mmseg_volo.predict` does; a large one in windows.

    Args:
        model: from `mmseg_volo.load`, for RGB images.
        path: path of the file.
        image: its pixels, from `open_upload`.

    Raises:
        UsageError: the model does not take the image.
    """
    path = Path(path)
    with _by_name(path):
        windows = _windows(model) if is_large(image) else None
        prediction = predict(model, path, maps=['confidence'], windows=windows, tell=lambda text: None)  # shown before
    assert prediction.confidence is not None  # requested above
    confidence = np.nan_to_num(100 * prediction.confidence).clip(0, 100).astype(np.uint8)
    scale = min(1.0, SHOWN_SIDE / max(image.shape[:2]))
    picture: NDArray[Any] = image
    if scale < 1:
        size = [max(1, round(n * scale)) for n in image.shape[1::-1]]
        picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Segmentation(
        path.name, picture, prediction.mask, confidence, prediction.classes, prediction.palette, windows
    )


def _windows(model: BaseSegmentor) -> int | None:
    """Return the side of windows for a model that predicts whole images, which takes quadratic time."""
    from mmseg_volo.inference.segment import trained_on, why_whole

    fixed = why_whole(model, model.cfg.test_pipeline) or model.options.mode == 'slide'
    return None if fixed else trained_on(model)


def view(segmentation: Segmentation, chosen: Collection[str], opacity: float, least: int) -> RenderedView:
    """Draw the classes over the image.

    Args:
        chosen: names of classes to show; all if empty.
        opacity: 0 shows the image alone, 1 the colours alone.
        least: pixels with less confidence, in per cent, are hidden.
    """
    count = len(segmentation.classes)
    hidden = count  # index of hidden pixels, after those of the classes
    dtype: type[np.uint8] | type[np.uint16] = np.uint8 if count <= 255 else np.uint16
    indices = [i if not chosen or name in chosen else hidden for i, name in enumerate(segmentation.classes)]
    mask = np.array([*indices, hidden], np.uint16)[np.minimum(segmentation.mask, np.uint16(hidden))]
    mask[segmentation.confidence < least] = hidden
    counts = np.bincount(mask.ravel(), minlength=count + 1)[:count]
    areas = {int(i): int(counts[i]) for i in np.argsort(-counts, kind='stable') if counts[i]}
    height, width = segmentation.picture.shape[:2]
    small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    picture = overlay(segmentation.picture, small, segmentation.palette, opacity)
    picture[small == hidden] = segmentation.picture[small == hidden]
    mask[mask == hidden] = np.iinfo(dtype).max
    return RenderedView(picture, mask.astype(dtype), areas)


def areas_table(segmentation: Segmentation, areas: Mapping[int, int]) -> str:
    """Return an HTML table of the areas, with the colours of the classes and shares of the pixels that have data."""
    classes, palette = segmentation.classes, segmentation.palette
    total = int((segmentation.mask < len(classes)).sum())
    rows = []
    for i, pixels in areas.items():
        chip = f'<span class="chip" style="background:rgb{tuple(int(c) for c in palette[i])}"></span>'
        share = f'{100 * pixels / total:.1f} %'
        rows.append(f'<tr><td>{chip}{escape(classes[i])}</td><td>{share}</td><td>{pixels:,}</td></tr>')
    if left := total - sum(areas.values()):
        rows.append(f'<tr class="left"><td>hidden</td><td>{100 * left / total:.1f} %</td><td>{left:,}</td></tr>')
    if no_data := segmentation.mask.size - total:
        rows.append(f'<tr class="left"><td>no data</td><td></td><td>{no_data:,}</td></tr>')
    return f'<table class="areas"><tr><th>Class</th><th>Area</th><th>Pixels</th></tr>{"".join(rows)}</table>'
