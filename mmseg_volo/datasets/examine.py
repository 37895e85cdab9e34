"""A look at images and their labels, decoded to the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from mmseg_volo.errors import UsageError
from mmseg_volo.files import refuse_special
from mmseg_volo.pictures import open_picture, read_image

IGNORED = 'ignored'  # beside the names of classes


class BadFile(UsageError):
    """A file that cannot be used. `kind` is 'missing', 'unreadable', 'channels', 'size' or 'values'."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def fault_of(image: Path, error: BaseException) -> BadFile:
    """What an error of any type says of an image or its label; the others are looked at all the same."""
    if isinstance(error, BadFile):
        return error
    text = 'not enough memory' if isinstance(error, MemoryError) else f'{type(error).__name__}: {error}'
    return BadFile('unreadable', f'{image} or its label cannot be read ({" ".join(text.split())})')


@dataclass(kw_only=True)
class Tally:
    """What the images and labels of a data set hold."""

    sizes: Counter[str] = field(default_factory=Counter)  # 'WIDTHxHEIGHT' -> images
    pixels: Counter[str] = field(default_factory=Counter)  # class -> pixels of all labels
    holding: Counter[str] = field(default_factory=Counter)  # class -> labels that hold it
    blank: list[str] = field(default_factory=list)  # labels of ignored pixels only
    turned: list[str] = field(default_factory=list)  # images that loading turns, and not their labels

    def add(self, image: Path, label: Path | None, result: tuple[str, Mapping[str, int], bool]) -> None:
        """Counts what `examine` has found."""
        size, pixels, turned = result
        self.sizes[size] += 1
        self.pixels.update(pixels)
        self.holding.update(pixels.keys())
        if label is not None and pixels.keys() == {IGNORED}:
            self.blank.append(str(label))
        if turned:
            self.turned.append(str(image))


def examine(image: Path, label: Path | None, names: Mapping[int, str]) -> tuple[str, dict[str, int], bool]:
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
        raise BadFile('channels', f'{label} is a picture of mode {mask.mode}, expected class indices in one channel')
    check_size(label, mask.size, (width, height), turned)
    if values.dtype in (np.uint8, bool):
        counts = np.bincount(values.ravel())
        pixels = {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    else:
        pixels = {int(v): int(n) for v, n in zip(*np.unique(values, return_counts=True), strict=True)}
    if strange := sorted(pixels.keys() - names.keys()):
        shown = ', '.join(map(str, strange[:5])) + (', ...' if len(strange) > 5 else '')
        raise BadFile('values', f'{label} holds {shown}, expected {in_words(names)}')
    return size, named(pixels, names), turned


def shown_size(picture: Image.Image) -> tuple[tuple[int, int], bool]:
    """(Width, height) of a picture as loading shows it, and whether its EXIF turns or mirrors it."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    width, height = picture.size
    return (height, width) if orientation >= 5 else (width, height), orientation > 1


def check_size(label: Path, found: tuple[int, int], wanted: tuple[int, int], turned: bool) -> None:
    """Raises a `BadFile` if a label (width, height) has not the size of its image."""
    if found != wanted:
        how = ', as its EXIF orientation turns it' if turned else ''
        size = 'x'.join(map(str, wanted))
        raise BadFile('size', f'{label} is {found[0]}x{found[1]}, its image {size}{how}')


def named(pixels: Mapping[int, int], names: Mapping[int, str]) -> dict[str, int]:
    """Value -> pixels as class -> pixels; several values may be one class."""
    found: Counter[str] = Counter()
    for value, n in pixels.items():
        found[names[value]] += n
    return dict(found)


def in_words(values: Iterable[int]) -> str:
    """Whole numbers as a reader says them, e.g. `0 to 18 and 255`."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ' and '.join(str(low) if low == high else f'{low} to {high}' for low, high in runs)


def decoded_image(path: Path) -> Image.Image:
    """A picture as `decoded` gives it, of kinds that Pillow does not read as loading shows it.

    Raises:
        BadFile: loading would refuse it.
    """
    try:
        picture = decoded(path)
        deep = picture.mode in ('I', 'F') or picture.mode.startswith('I;')
    except BadFile as error:
        if error.kind == 'missing' or 'truncated' in str(error):
            raise
        deep = True
    try:
        return Image.fromarray(read_image(path)) if deep else picture
    except UsageError as error:
        raise BadFile('unreadable', str(error)) from error


def decoded(path: Path) -> Image.Image:
    """A picture, decoded to the end.

    Raises:
        BadFile: it is missing or unreadable.
    """
    try:
        refuse_special(path)
        with open_picture(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise BadFile('missing', f'{path} is missing') from None
    except Exception as error:  # whatever a broken file makes Pillow raise
        size = path.stat().st_size if path.exists() else 0
        reason = ' '.join(str(error).replace(str(path), 'it').split())
        raise BadFile('unreadable', f'{path} ({size} bytes) is not a readable picture ({reason})') from error
