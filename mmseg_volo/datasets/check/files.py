"""Check images and their labels by decoding them to the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmseg_volo.errors import BadFileError
from mmseg_volo.io.decoding import check_size, decoded, decoded_image, shown_size
from mmseg_volo.utils.text import format_ranges

IGNORED = 'ignored'  # name of what is no class, beside the names of classes
PairResult = tuple[str, dict[str, int], bool]  # see the result of `check_pair`
PairCheck = Callable[[Path, 'Path | None', Mapping[int, str]], PairResult]  # a function like `check_pair`


def fault_of(image: Path, error: BaseException) -> BadFileError:
    """Turn an error of any type into a fault of an image or its label, so that the others are checked all the same."""
    if isinstance(error, BadFileError):
        return error
    text = 'not enough memory' if isinstance(error, MemoryError) else f'{type(error).__name__}: {error}'
    return BadFileError('unreadable', f'{image} or its label cannot be read ({" ".join(text.split())})')


@dataclass(kw_only=True)
class DatasetStats:
    """Count sizes, pixels and classes over the images and labels of a data set."""

    sizes: Counter[str] = field(default_factory=Counter)  # 'WIDTHxHEIGHT' -> images
    pixels: Counter[str] = field(default_factory=Counter)  # class -> pixels of all labels
    holding: Counter[str] = field(default_factory=Counter)  # class -> labels that contain it
    blank: list[str] = field(default_factory=list)  # labels of ignored pixels only
    turned: list[str] = field(default_factory=list)  # images that loading turns by their EXIF, unlike their labels

    def add(self, image: Path, label: Path | None, result: PairResult) -> None:
        """Add the result of `check_pair` for a pair."""
        size, pixels, turned = result
        self.sizes[size] += 1
        self.pixels.update(pixels)
        self.holding.update(pixels.keys())
        if label is not None and pixels.keys() == {IGNORED}:
            self.blank.append(str(label))
        if turned:
            self.turned.append(str(image))


def check_pair(image: Path, label: Path | None, names: Mapping[int, str]) -> PairResult:
    """Decode an image and its label to the end.

    Args:
        image: the image file.
        label: its label file; None if it has none.
        names: label value -> class, or 'ignored'; several values may map to one class.

    Returns:
        ('WIDTHxHEIGHT' of the image as loading shows it, class -> pixels of the label, whether loading turns or
        mirrors the image by its EXIF orientation, and so not its label).

    Raises:
        BadFileError: one is unreadable, the sizes differ, or the label holds other values; the message names the file.
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
    """Sum pixels by label value into pixels by class; several values may map to one class."""
    counts: Counter[str] = Counter()
    for value, n in pixels.items():
        counts[names[value]] += n
    return dict(counts)
