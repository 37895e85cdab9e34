"""Decode whole images and labels, as a check of a data set does."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image

from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.io.image import open_picture, read_image
from mmseg_volo.utils.files import refuse_special


def shown_size(picture: Image.Image) -> tuple[tuple[int, int], bool]:
    """Return the (width, height) of a picture as it is loaded, and whether its EXIF orientation rotates or flips it."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    width, height = picture.size
    return (height, width) if orientation >= 5 else (width, height), orientation > 1


def check_size(label: Path, size: tuple[int, int], expected: tuple[int, int], rotated: bool) -> None:
    """Raise a `BadFileError` if the (width, height) of a label differs from that of its image."""
    if size != expected:
        how = ', after rotation by its EXIF orientation' if rotated else ''
        image_size = 'x'.join(map(str, expected))
        raise BadFileError('size', f'{label} is {size[0]}x{size[1]}, its image {image_size}{how}')


def decoded_image(path: Path) -> Image.Image:
    """Return a picture as `decoded` does, or as `read_image` does where Pillow cannot read it or keeps over 8 bits.

    Raises:
        BadFileError: loading would refuse it.
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
    """Return a picture, decoded to the end.

    Raises:
        BadFileError: it is missing or unreadable.
    """
    try:
        refuse_special(path)
        with open_picture(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise BadFileError('missing', f'{path} is missing') from None
    except Exception as error:  # a broken file makes Pillow raise anything
        size = path.stat().st_size if path.exists() else 0
        reason = ' '.join(str(error).replace(str(path), 'it').split())
        raise BadFileError('unreadable', f'{path} ({size} bytes) is not a readable picture ({reason})') from error
