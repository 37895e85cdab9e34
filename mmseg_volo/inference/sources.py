"""Which files are to be predicted, and under which names their results are kept."""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.options import OUTPUTS
from mmseg_volo.io.file_types import ARRAYS, IMAGES, PICTURES, TIFFS, VIDEOS, FileCounts, walk_folders

__all__ = ['IMAGES', 'TIFFS', 'VIDEOS', 'Item', 'find_inputs', 'real_path']

RECORD, AREAS = 'predictions.jsonl', 'areas.csv'  # in a folder of results


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


def real_path(path: Path) -> str:
    """The path of a file without links to folders; a file that is a link itself is another file."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def find_inputs(inputs: Sequence[str], out: Path, left: FileCounts | None = None, arrays: bool = False) -> list[Item]:
    """The images and videos that inputs name.

    Args:
        inputs: files, folders (searched to the bottom, links too, without hidden files), or glob patterns (`**` too).
        out: folder for the results. It is not searched, unless it is given itself; and no result in it is an input.
        left: counts what else the folders and patterns hold.
        arrays: whether .npy files are images, too.

    Returns:
        Each file once, however often and in whatever spelling it is given.

    Raises:
        UsageError: an input names nothing, two would be written to the same place, or a package for videos is absent.
    """
    left = FileCounts() if left is None else left
    search = _Search(out, IMAGES + VIDEOS + (ARRAYS if arrays else ()), left)
    found: dict[str, Item] = {}
    for given in inputs:
        before = search.results
        items = [*search.items_of(given)]
        if not items and search.results is not before:
            result = next((file for file in sorted(search.results.glob('*')) if file.is_file()), search.results)
            raise UsageError(f'{result} would be replaced by its own result: give another folder to --out')
        if not items:
            kinds = ', '.join([*PICTURES, *VIDEOS])
            raise UsageError(
                f'no image or video at {given!r}: give a file, a folder or a pattern, with {kinds}'
                f'{f"; {left}" if left else ""}'
            )
        for item in items:
            found.setdefault(real_path(item.path), item)
    _refuse_same_names([*found.values()])
    videos = [item.path for item in found.values() if item.is_video]
    if videos and importlib.util.find_spec('av') is None:
        raise UsageError(f'{videos[0]} is a video: reading it needs PyAV, pip install av')
    return [*found.values()]


def _refuse_same_names(items: Sequence[Item]) -> None:
    places: dict[Path, Item] = {}
    for item in items:
        if (other := places.setdefault(item.stem, item)) is not item:
            raise UsageError(
                f'{other.path} and {item.path} would be written to the same file: rename one, or predict them apart'
            )
    for item in items:  # frames of a/b.mp4 may be files in a/b/
        above = next((places[p] for p in item.stem.parents if p in places and places[p].is_video), None)
        if above:
            raise UsageError(
                f'results of {above.path} and {item.path} would be mixed: rename one, or predict them apart'
            )


class _Search:
    """Looks for files of some kinds, and leaves results out."""

    def __init__(self, out: Path, suffixes: tuple[str, ...], left: FileCounts):
        self.out, self.suffixes, self.left = os.path.realpath(out), suffixes, left
        self.results: Path | None = None  # the last that was left out

    def items_of(self, given: str) -> Iterator[Item]:
        path = Path(os.path.expanduser(given))
        if path.is_file():
            if not self._is_result(path, os.path.realpath(path.parent)):
                yield Item(path, Path(path.name))
        elif path.is_dir():
            yield from self._below(path, path)
        else:
            first = next((i for i, part in enumerate(path.parts) if glob.has_magic(part)), len(path.parts))
            top = Path(*path.parts[:first])
            for match in sorted(_matches(path.parts)):
                if match.is_dir():
                    yield from self._below(match, top) if not self._is_skipped(match, top) else ()
                elif not self._is_result(match, real := os.path.realpath(match.parent)):
                    if not (self._is_inside(top) and _is_below(real, self.out)):
                        yield from self._taken(match, top)

    def _below(self, folder: Path, top: Path) -> Iterator[Item]:
        for _, _, files in walk_folders(folder, self.left, lambda path, real: self._skip(path, real, folder)):
            for file in files:
                yield from self._taken(file, top)

    def _taken(self, file: Path, top: Path) -> Iterator[Item]:
        name = file.relative_to(top)
        if file.name in (RECORD, AREAS) and os.path.realpath(file.parent) == self.out:
            return
        if file.suffix.lower() not in self.suffixes or any(part.startswith('.') for part in name.parts):
            self.left.add(file)
        elif not file.is_file():
            self.left.add(file, 'broken link' if file.is_symlink() else 'no file')
        else:
            yield Item(file, name)

    def _skip(self, folder: Path, real: str, top: Path) -> bool:
        """Folders of results: ours, and those of earlier calls; `top` itself is never one of the latter."""
        if real == self.out and self._is_inside(top):
            return True
        if self._is_result(folder, real):
            return True
        if folder != top and folder.name in OUTPUTS and (folder.parent / RECORD).is_file():
            self.left.add(folder, 'folder of results')
            return True
        return False

    def _is_skipped(self, folder: Path, top: Path) -> bool:
        real = os.path.realpath(folder)
        return any(part.startswith('.') for part in folder.relative_to(top).parts) or (
            self._is_inside(top) and _is_below(real, self.out)
        )

    def _is_inside(self, top: Path) -> bool:
        """Whether the folder of our results is one below the folder that was given."""
        real = os.path.realpath(top)
        return self.out != real and _is_below(self.out, real)

    def _is_result(self, path: Path, real: str) -> bool:
        """Whether it lies where we write results; `real` is its folder, or itself if it is one, without links."""
        if not _is_below(real, self.out) or os.path.relpath(real, self.out).split(os.sep)[0] not in OUTPUTS:
            return False
        self.results = path
        return True


def _matches(parts: Sequence[str]) -> Iterator[Path]:
    """What a pattern names; `**` goes through each folder once, where Python's glob goes round in circles of links."""
    if '**' not in parts:
        yield from map(Path, glob.glob(os.path.join(*parts)))
        return
    at = parts.index('**')
    for top in glob.glob(os.path.join(*parts[:at]) if at else os.curdir):
        if at + 1 == len(parts):
            yield Path(top)
        elif os.path.isdir(top):
            for folder, _, _ in walk_folders(Path(top), FileCounts()):
                yield from _matches([glob.escape(str(folder)), *parts[at + 1 :]])


def _is_below(real: str, folder: str) -> bool:
    return real == folder or real.startswith(os.path.join(folder, ''))
