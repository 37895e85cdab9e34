"""Find the files to predict, and the names of their results."""

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

RECORD, AREAS = 'predictions.jsonl', 'areas.csv'  # files in a folder of results


@dataclass(frozen=True)
class Item:
    """A file to predict.

    Args:
        path: path of the file.
        name: its path below the input folder, or its file name if the file itself is the input.
    """

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether the suffix is that of a video."""
        return self.path.suffix.lower() in VIDEOS

    @property
    def stem(self) -> Path:
        """The path of its results below the folder of each kind, without suffix."""
        return self.name.with_suffix('')


def real_path(path: Path) -> str:
    """Resolve links in the folder of a path, but not the file itself: a link to a file is a file of its own."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def find_inputs(inputs: Sequence[str], out: Path, left: FileCounts | None = None, arrays: bool = False) -> list[Item]:
    """Find the images and videos that inputs name.

    Args:
        inputs: files, folders (searched recursively, through links, without hidden files), or glob patterns (also
            `**`).
        out: folder for the results. It is searched only if it is an input itself, and results in it are never inputs.
        left: counts the other files in the folders and patterns.
        arrays: whether .npy files count as images.

    Returns:
        Each file once, even if several inputs name it.

    Raises:
        UsageError: an input names no file, two files would be written to the same path, or PyAV is missing.
    """
    left = FileCounts() if left is None else left
    search = _Search(out, IMAGES + VIDEOS + (ARRAYS if arrays else ()), left)
    by_path: dict[str, Item] = {}
    for name in inputs:
        before = search.results
        items = [*search.items_of(name)]
        if not items and search.results is not None and search.results is not before:
            result = next((file for file in sorted(search.results.glob('*')) if file.is_file()), search.results)
            raise UsageError(f'{result} would be replaced by its own result: give another folder to --out')
        if not items:
            kinds = ', '.join([*PICTURES, *VIDEOS])
            raise UsageError(
                f'no image or video at {name!r}: give a file, a folder or a pattern, with {kinds}'
                f'{f"; {left}" if left else ""}'
            )
        for item in items:
            by_path.setdefault(real_path(item.path), item)
    _refuse_same_names([*by_path.values()])
    videos = [item.path for item in by_path.values() if item.is_video]
    if videos and importlib.util.find_spec('av') is None:
        raise UsageError(f'{videos[0]} is a video: reading it needs PyAV, pip install av')
    return [*by_path.values()]


def _refuse_same_names(items: Sequence[Item]) -> None:
    by_stem: dict[Path, Item] = {}
    for item in items:
        if (other := by_stem.setdefault(item.stem, item)) is not item:
            raise UsageError(
                f'{other.path} and {item.path} would be written to the same file: '
                f'rename one, or predict them separately'
            )
    for item in items:  # frames of a/b.mp4 may be files in a/b/
        video = next((by_stem[p] for p in item.stem.parents if p in by_stem and by_stem[p].is_video), None)
        if video:
            raise UsageError(
                f'results of {video.path} and {item.path} would be mixed: rename one, or predict them separately'
            )


class _Search:
    """Search for files of some kinds, except results."""

    def __init__(self, out: Path, suffixes: tuple[str, ...], left: FileCounts):
        self.out, self.suffixes, self.left = os.path.realpath(out), suffixes, left
        self.results: Path | None = None  # the last result, or folder of results, that was skipped

    def items_of(self, name: str) -> Iterator[Item]:
        """Find the files of one input."""
        path = Path(os.path.expanduser(name))
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
        """Return whether to skip a folder: it holds our results, or those of earlier calls, unless it is `top`."""
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
        """Return whether the folder of our results lies below the input folder."""
        real = os.path.realpath(top)
        return self.out != real and _is_below(self.out, real)

    def _is_result(self, path: Path, real: str) -> bool:
        """Return whether it lies where we write results; `real` is its folder, or itself, with links resolved."""
        if not _is_below(real, self.out) or os.path.relpath(real, self.out).split(os.sep)[0] not in OUTPUTS:
            return False
        self.results = path
        return True


def _matches(parts: Sequence[str]) -> Iterator[Path]:
    """Expand a pattern; `**` visits each folder once, whereas Python's glob follows cycles of links."""
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
