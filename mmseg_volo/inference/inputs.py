"""Which files are to be predicted, and under which names their results are kept."""

from __future__ import annotations

import glob
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.options import OUTPUTS

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
VIDEOS = ('.mp4', '.mov', '.m4v', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv')
TIFFS = ('.tif', '.tiff')


@dataclass(frozen=True)
class Item:
    """A file to be predicted.

    Args:
        path: of the file.
        name: its path below the folder that was given, or its name.
    """

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """By its suffix."""
        return self.path.suffix.lower() in VIDEOS

    @property
    def stem(self) -> Path:
        """What the names of all its results begin with, below the folder of each kind."""
        return self.name.with_suffix('')


def find_inputs(inputs: Sequence[str], out: Path) -> list[Item]:
    """The images and videos that inputs name.

    Args:
        inputs: files, folders (searched to the bottom, without hidden files), or glob patterns (`**` too).
        out: folder for the results, in which nothing is looked for unless it is given itself.

    Returns:
        Each file once.

    Raises:
        UsageError: an input names nothing, two would be written to the same place, or a package for videos is absent.
    """
    found: dict[Path, Item] = {}
    for given in inputs:
        items = [*_items_of(given, out)]
        if not items:
            raise UsageError(
                f'no image or video at {given!r}: give a file, a folder or a pattern, with '
                f'{", ".join(IMAGES)} or {", ".join(VIDEOS)}'
            )
        for item in items:
            found.setdefault(item.path, item)
    places: dict[Path, Path] = {}
    for item in found.values():
        if (other := places.setdefault(item.stem, item.path)) != item.path:
            raise UsageError(
                f'{other} and {item.path} would be written to the same file: rename one, or predict them apart'
            )
    for item in found.values():  # frames of a/b.mp4 may be files in a/b/
        if above := next((places[p] for p in item.stem.parents if p in places), None):
            raise UsageError(f'results of {above} and {item.path} would be mixed: rename one, or predict them apart')
    for item in found.values():
        inside = item.path.resolve()
        if out.resolve() in inside.parents:
            kind, *name = inside.relative_to(out.resolve()).parts
            if kind in OUTPUTS and name and Path(*name).with_suffix('') == item.stem:
                raise UsageError(f'{item.path} would be replaced by its own result: give another folder to --out')
    videos = [item.path for item in found.values() if item.is_video]
    if videos and importlib.util.find_spec('av') is None:
        raise UsageError(f'{videos[0]} is a video: reading it needs PyAV, pip install av')
    return [*found.values()]


def _items_of(given: str, out: Path) -> Iterator[Item]:
    path = Path(given).expanduser()
    if path.is_file():
        yield Item(path, Path(path.name))
        return
    if path.is_dir():
        top, files = path, sorted(path.rglob('*'))
    else:
        first = next((i for i, part in enumerate(path.parts) if glob.has_magic(part)), len(path.parts))
        top, files = Path(*path.parts[:first]), [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    results = out.resolve()
    inside = results not in (top.resolve(), *top.resolve().parents)
    for file in files:
        hidden = any(part.startswith('.') for part in file.relative_to(top).parts)
        if file.suffix.lower() not in IMAGES + VIDEOS or hidden or not file.is_file():
            continue
        if not inside or results not in file.resolve().parents:
            yield Item(file, file.relative_to(top))
