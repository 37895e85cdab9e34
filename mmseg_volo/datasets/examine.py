"""A look at an image and its label, decoded to the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from mmseg_volo.errors import UsageError


def examine(
    image: Path, label: Path | None, names: Mapping[int, str], expected: str
) -> tuple[str, dict[str, int], bool]:
    """Decodes an image and its label to the end.

    Args:
        image: the picture.
        label: its label; None if it has none.
        names: label value -> class.
        expected: the label values in words.

    Returns:
        ('WIDTHxHEIGHT' of the image as loading shows it, class -> pixels of the label, whether loading turns or
        mirrors the image, as its EXIF says, and so not its label).

    Raises:
        UsageError: one is unreadable, the sizes differ, or the label holds other values; the message names the file.
    """
    picture = _decoded(image)
    width, height = picture.size
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation >= 5:
        width, height = height, width
    size, turned = f'{width}x{height}', orientation > 1
    if label is None:
        return size, {}, False
    mask = _decoded(label)
    values = np.asarray(mask)
    if values.ndim != 2:
        raise UsageError(f'{label} is a picture of mode {mask.mode}, expected class indices in one channel')
    if mask.size != (width, height):
        how = ', as its EXIF orientation turns it' if turned else ''
        raise UsageError(f'{label} is {mask.width}x{mask.height}, its image {size}{how}')
    if values.dtype in (np.uint8, bool):
        counts = np.bincount(values.ravel())
        pixels = {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    else:
        pixels = {int(v): int(n) for v, n in zip(*np.unique(values, return_counts=True), strict=True)}
    if strange := sorted(pixels.keys() - names.keys()):
        shown = ', '.join(map(str, strange[:5])) + (', ...' if len(strange) > 5 else '')
        raise UsageError(f'{label} holds {shown}, expected {expected}')
    return size, {names[value]: n for value, n in pixels.items()}, turned


def _decoded(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except Exception as error:  # whatever a broken file makes Pillow raise
        size = path.stat().st_size if path.exists() else 0
        reason = ' '.join(str(error).replace(str(path), 'it').split())
        raise UsageError(f'{path} ({size} bytes) is not a readable picture ({reason})') from error
