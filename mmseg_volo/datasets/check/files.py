"""A look at images and their labels, decoded to the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmseg_volo.errors import BadFileError
from mmseg_volo.io.decoding import check_size, decoded, decoded_image, shown_size
from mmseg_volo.utils.text import format_ranges

IGNORED = 'ignored'  # beside the names of classes


def fault_of(image: Path, error: BaseException) -> BadFileError:
    """What an error of any type says of an image or its label; the others are looked at all the same."""
    if isinstance(error, BadFileError):
        return error
    text = 'not enough memory' if isinstance(error, MemoryError) else f'{type(error).__name__}: {error}'
    return BadFileError('unreadable', f'{image} or its label cannot be read ({" ".join(text.split())})')


@dataclass(kw_only=True)
class DatasetStats:
    """What the images and labels of a data set hold."""

    sizes: Counter[str] = field(default_factory=Counter)  # 'WIDTHxHEIGHT' -> images
    pixels: Counter[str] = field(default_factory=Counter)  # class -> pixels of all labels
    holding: Counter[str] = field(default_factory=Counter)  # class -> labels that hold it
    blank: list[str] = field(default_factory=list)  # labels of ignored pixels only
    turned: list[str] = field(default_factory=list)  # images that loading turns, and not their labels

    def add(self, image: Path, label: Path | None, result: tuple[str, Mapping[str, int], bool]) -> None:
        """Counts what `check_pair` has found."""
        size, pixels, turned = result
        self.sizes[size] += 1
        self.pixels.update(pixels)
        self.holding.update(pixels.keys())
        if label is not None and pixels.keys() == {IGNORED}:
            self.blank.append(str(label))
        if turned:
            self.turned.append(str(image))


def check_pair(image: Path, label: Path | None, names: Mapping[int, str]) -> tuple[str, dict[str, int], bool]:
    """Decodes an image and its label to the end.

    Args:
        image: the picture.
        label: its label; None if it has none.
        names: label value -> class, or 'ignored'; several values may be one class.

    Returns:
        ('WIDTHxHEIGHT' of the image as loading shows it, class -> pixels of the label, whether loading turns or
        mirrors the image, as its EXIF says, and so not its label).

    Raises:
        BadFile: one is unreadable, the sizes differ, or the label holds other values; the message names the file.
    """
    (width, height), turned = shown_size(decoded_image(image))
    size = f'{width}x{height}'
    if label is None:
        return size, {}, False
    mask = decoded(label)
    values = np.asarray(mask)
    if values.ndim != 2 or values.dtype.kind == 'f':
        raise BadFileError(
            'channels', f'{label} is a picture of mode {mask.mode}, expected class indices in one channel'
        )
    check_size(label, mask.size, (width, height), turned)
    if values.dtype in (np.uint8, bool):
        counts = np.bincount(values.ravel())
        pixels = {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    else:
        pixels = {int(v): int(n) for v, n in zip(*np.unique(values, return_counts=True), strict=True)}
    if strange := sorted(pixels.keys() - names.keys()):
        shown = ', '.join(map(str, strange[:5])) + (', ...' if len(strange) > 5 else '')
        raise BadFileError('values', f'{label} holds {shown}, expected {format_ranges(names)}')
    return size, count_by_class(pixels, names), turned


def count_by_class(pixels: Mapping[int, int], names: Mapping[int, str]) -> dict[str, int]:
    """Value -> pixels as class -> pixels; several values may be one class."""
    found: Counter[str] = Counter()
    for value, n in pixels.items():
        found[names[value]] += n
    return dict(found)
