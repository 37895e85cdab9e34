"""Decode images and labels to their ends, as a check of a data set does."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image

from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.io.image import open_picture, read_image
from mmseg_volo.utils.files import refuse_special


def shown_size(picture: Image.Image) -> tuple[tuple[int, int], bool]:
    """(Width, height) of a picture as loading shows it, and whether its EXIF turns or mirrors it."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    width, height = picture.size
    return (height, width) if orientation >= 5 else (width, height), orientation > 1


def check_size(label: Path, found: tuple[int, int], wanted: tuple[int, int], turned: bool) -> None:
    """Raises a `BadFileError` if a label (width, height) has not the size of its image."""
    if found != wanted:
        how = ', as its EXIF orientation turns it' if turned else ''
        size = 'x'.join(map(str, wanted))
        raise BadFileError('size', f'{label} is {found[0]}x{found[1]}, its image {size}{how}')


def decoded_image(path: Path) -> Image.Image:
    """A picture as `decoded` gives it, of kinds that Pillow does not read as loading shows it.

    Raises:
        BadFile: loading would refuse it.
    """
    try:
        picture = decoded(path)
        deep = picture.mode in ('I', 'F') or picture.mode.startswith('I;')
    except BadFileError as error:
        if error.kind == 'missing' or 'truncated' in str(error):
            raise
        deep = True
    try:
        return Image.fromarray(read_image(path)) if deep else picture
    except UsageError as error:
        raise BadFileError('unreadable', str(error)) from error


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
        raise BadFileError('missing', f'{path} is missing') from None
    except Exception as error:  # whatever a broken file makes Pillow raise
        size = path.stat().st_size if path.exists() else 0
        reason = ' '.join(str(error).replace(str(path), 'it').split())
        raise BadFileError('unreadable', f'{path} ({size} bytes) is not a readable picture ({reason})') from error
