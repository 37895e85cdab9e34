"""Folders and patterns of images in, masks and overlays out."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from torch import nn
from tqdm import tqdm

from mmseg_volo.apis import predict
from mmseg_volo.draw import overlay, with_legend
from mmseg_volo.errors import UsageError
from mmseg_volo.images import as_rgb

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def find_images(inputs: Sequence[str]) -> list[tuple[Path, Path]]:
    """The image files that inputs name.

    Args:
        inputs: files, folders (searched to the bottom), or glob patterns (`**` too).

    Returns:
        (file, its path below the folder that was given, or its name), without duplicates.

    Raises:
        UsageError: an input names no image, or two would be written to the same place.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        images = dict(_images_of(given))
        if not images:
            raise UsageError(f'no image at {given!r}: give a file, a folder or a pattern, with {", ".join(SUFFIXES)}')
        found |= {path: name for path, name in images.items() if path not in found}
    places: dict[Path, Path] = {}
    for path, name in found.items():
        if (other := places.setdefault(name.with_suffix(''), path)) != path:
            raise UsageError(f'{other} and {path} would be written to the same file: rename one, or predict them apart')
    return [*found.items()]


def _images_of(given: str) -> Iterator[tuple[Path, Path]]:
    path = Path(given).expanduser()
    if path.is_file():
        yield path, Path(path.name)
    elif path.is_dir():
        for p in sorted(path.rglob('*')):
            if p.suffix.lower() in SUFFIXES:
                yield p, p.relative_to(path)
    else:
        fixed = Path(*[part for part in path.parts if not glob.has_magic(part)][: _first_magic(path)])
        for match in sorted(glob.glob(str(path), recursive=True)):
            p = Path(match)
            if p.suffix.lower() in SUFFIXES:
                yield p, p.relative_to(fixed)


def _first_magic(path: Path) -> int:
    return next((i for i, part in enumerate(path.parts) if glob.has_magic(part)), len(path.parts))


def predict_files(model: nn.Module, inputs: Sequence[str], out: str | Path, opacity: float = 0.5) -> list[Path]:
    """Writes `OUT/masks/NAME.png` (class indices) and `OUT/overlays/NAME.jpg` (with a legend) for each image.

    A file that cannot be read is reported and left out; the others are done all the same.

    Args:
        model: from `mmseg_volo.load`.
        inputs: see `find_images`.
        out: folder, made if need be.
        opacity: of the overlay, 0 to 1.

    Returns:
        The masks that were written.

    Raises:
        UsageError: no image was found, or some could not be read (after the others were written).
    """
    if not 0 <= opacity <= 1:
        raise UsageError(f'opacity must lie in 0..1, got {opacity}')
    images = find_images(inputs)
    out, written, failed = Path(out), [], []
    for path, name in tqdm(images, desc='predicting', unit='image', file=sys.stderr):
        try:
            image = as_rgb(path)
        except (OSError, ValueError) as error:
            failed.append(str(error))
            continue
        found = predict(model, image)
        picture = overlay(image, found.mask, found.palette, opacity)
        picture = with_legend(picture, found.mask, found.classes, found.palette)
        mask_path = out / 'masks' / name.with_suffix('.png')
        for place, pixels in (
            (mask_path, found.mask),
            (out / 'overlays' / name.with_suffix('.jpg'), picture[..., ::-1]),
        ):
            place.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(place), pixels):
                raise UsageError(f'could not write {place}')
        written.append(mask_path)
    print(f'{len(written)} masks and overlays in {out}')
    if failed:
        raise UsageError(f'{len(failed)} of {len(images)} images left out: {"; ".join(failed)}')
    return written
