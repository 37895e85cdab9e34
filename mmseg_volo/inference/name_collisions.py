"""Detect inputs whose results would replace those of other inputs."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.sources import Item, real_path
from mmseg_volo.io.file_types import VIDEOS


class Entry(TypedDict, total=False):
    """A file in the manifest of a folder of results; `pixels`, `square_metres` and the like are not listed here."""

    file: str  # name, see `Item`
    input: list[Any]  # see `state_of`
    run: str | None  # mark of the processes that filled the folder together
    outputs: dict[str, list[str]]  # kind -> paths below the folder
    sizes: dict[str, int]  # path -> bytes
    left_out: dict[str, str]  # kind -> why it was not written
    error: str
    traceback: str


class Names:
    """Compare names of results as the file system of a folder does.

    Args:
        out: folder of the results.
        probe: name of a file or folder in it, in lower case.
    """

    def __init__(self, out: Path, probe: str):
        self.out = out
        self.folds = folds_case(out, probe)

    def key(self, name: str | Path) -> str:
        """Return a key that is the same for inputs whose results would be the same files; `name` as in `Item`."""
        stem = Path(name).with_suffix('').as_posix()
        if self.folds or sys.platform == 'darwin':
            stem = unicodedata.normalize('NFC', stem)
        return stem.casefold() if self.folds else stem

    def check(self, items: Sequence[Item], entries: Mapping[str, Entry], replaceable: Collection[str]) -> set[str]:
        """Check whether results of other inputs would be replaced.

        An input that was moved, alone or with its folder, counts as the same if its former path no longer exists and
        name, size and time agree; its entry is then updated.

        Args:
            items: files to predict.
            entries: name -> entry of the manifest.
            replaceable: names of entries that may be replaced.

        Returns:
            The names of the entries that will be replaced.

        Raises:
            UsageError: other entries would be replaced.
        """
        written = {self.key(name): name for name, entry in entries.items() if entry.get('outputs')}
        mine: dict[str, Item] = {}
        replaced: set[str] = set()
        lost: list[tuple[str, Path]] = []  # former input, new input
        for item in items:
            key = self.key(item.name)
            if (other := mine.setdefault(key, item)) is not item:
                raise UsageError(
                    f'{other.path} and {item.path} would be written to the same file, because their names map to the '
                    f'same file name in {self.out}: rename one, or predict them separately'
                )
            name = written.get(key)
            if name is None or self._is_same(item, name, entries[name]):
                continue
            if name in replaceable:
                replaced.add(name)
            else:
                lost.append((_path(entries[name]), item.path))
        lost += self._mixed(mine, written, entries, replaceable)
        if lost:
            (old, new), more = lost[0], f' (and {len(lost) - 1} more)' * (len(lost) > 1)
            gone = '' if os.path.lexists(old) else ', which no longer exists,'
            raise UsageError(
                f'{self.out} holds results of {old}{gone} and those of {new} would be written to the same file{more}: '
                f'give another folder to --out, or --overwrite to replace them'
            )
        return replaced

    def _is_same(self, item: Item, name: str, entry: Entry) -> bool:
        old, new = _path(entry), real_path(item.path)
        if old == new or real_path(Path(old)) == new:
            return True
        if name == str(item.name) and not os.path.lexists(old) and entry['input'][1:] == state_of(item.path)[1:]:
            entry['input'] = state_of(item.path)
            return True
        return False

    def _mixed(
        self,
        mine: Mapping[str, Item],
        written: Mapping[str, str],
        entries: Mapping[str, Entry],
        replaceable: Collection[str],
    ) -> list[tuple[str, Path]]:
        """Find results of a video a/b.mp4 and of images in a/b/, which may be in the same folder.

        Returns:
            (former input, new input) of each pair.
        """
        kept = {key: name for key, name in written.items() if name not in replaceable}
        new = {key: item for key, item in mine.items() if item.is_video}
        old = {key: name for key, name in kept.items() if Path(name).suffix.lower() in VIDEOS}
        videos_over_images = [
            (new[parent], name) for key, name in kept.items() for parent in _parents(key) if parent in new
        ]
        pairs = [(_path(entries[name]), item.path) for item, name in videos_over_images]
        for key, item in mine.items():
            pairs += [(_path(entries[old[parent]]), item.path) for parent in _parents(key) if parent in old]
        return pairs


def folds_case(folder: Path, probe: str) -> bool:
    """Return whether a folder ignores case, as on Windows and macOS; `probe` exists in it, in lower case."""
    return (folder / probe.upper()).exists()


def state_of(path: Path) -> list[Any]:
    """Return [path without links, bytes, modification time in ns] of an input, or [] if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [real_path(path), status.st_size, status.st_mtime_ns]


def is_of(entry: Entry, path: Path) -> bool:
    """Return whether an entry of the manifest is of a file in its current state."""
    before, now = entry.get('input'), state_of(path)
    if not before or not now or before[1:] != now[1:]:
        return False
    former, current = str(before[0]), str(now[0])
    return former == current or real_path(Path(former)) == current


def _path(entry: Entry) -> str:
    return str((entry.get('input') or ['a file that no longer exists'])[0])


def _parents(key: str) -> list[str]:
    parts = key.split('/')
    return ['/'.join(parts[:i]) for i in range(1, len(parts))]
