"""Whether a folder of results holds those of another input under the names of a new one."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.sources import Item, real_path
from mmseg_volo.io.file_types import VIDEOS


class Names:
    """The names of results as the file system of a folder tells them apart.

    Args:
        out: folder of the results.
        probe: name of something in it, in small letters.
    """

    def __init__(self, out: Path, probe: str):
        self.out = out
        self.folds = folds_case(out, probe)

    def key(self, name: str | Path) -> str:
        """What two inputs share whose results would be the same files; `name` as in `Item`."""
        stem = Path(name).with_suffix('').as_posix()
        if self.folds or sys.platform == 'darwin':
            stem = unicodedata.normalize('NFC', stem)
        return stem.casefold() if self.folds else stem

    def check(
        self, items: Sequence[Item], entries: Mapping[str, dict[str, Any]], replaceable: Collection[str]
    ) -> set[str]:
        """Looks for results of other inputs where those of the items will be.

        An input that was moved, with its folder or alone, is the same if it is no longer where it was and has its
        name, size and time; its entry is set right.

        Args:
            items: to be predicted.
            entries: of the record: name -> what is known.
            replaceable: names of entries that may be replaced.

        Returns:
            The names of entries that will be.

        Raises:
            UsageError: others would be.
        """
        written = {self.key(name): name for name, entry in entries.items() if entry.get('outputs')}
        mine: dict[str, Item] = {}
        replaced, lost = set(), []
        for item in items:
            key = self.key(item.name)
            if (other := mine.setdefault(key, item)) is not item:
                raise UsageError(
                    f'{other.path} and {item.path} would be written to the same file, as {self.out} takes their names '
                    f'for one: rename one, or predict them apart'
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
            (old, new), more = lost[0], f' ({len(lost) - 1} more such)' * (len(lost) > 1)
            gone = '' if os.path.lexists(old) else ', which is no longer there,'
            raise UsageError(
                f'{self.out} holds results of {old}{gone} and those of {new} would be written to the same file{more}: '
                f'give another folder to --out, or --overwrite to replace them'
            )
        return replaced

    def _is_same(self, item: Item, name: str, entry: dict[str, Any]) -> bool:
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
        entries: Mapping[str, dict[str, Any]],
        replaceable: Collection[str],
    ) -> list[tuple[str, Path]]:
        """Frames of a/b.mp4 may be files in a/b/, where results of images in a folder of this name are."""
        kept = {key: name for key, name in written.items() if name not in replaceable}
        new = {key: item for key, item in mine.items() if item.is_video}
        old = {key: name for key, name in kept.items() if Path(name).suffix.lower() in VIDEOS}
        found = [(new[above], name) for key, name in kept.items() for above in _above(key) if above in new]
        pairs = [(_path(entries[name]), item.path) for item, name in found]
        for key, item in mine.items():
            pairs += [(_path(entries[old[above]]), item.path) for above in _above(key) if above in old]
        return pairs


def folds_case(folder: Path, probe: str) -> bool:
    """Whether a folder takes large and small letters for one, as on Windows and macOS; `probe` is in it, in small."""
    return (folder / probe.upper()).exists()


def state_of(path: Path) -> list[Any]:
    """By what an input is known again: path without links, size, time; nothing if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [real_path(path), found.st_size, found.st_mtime_ns]


def is_of(entry: Mapping[str, Any], path: Path) -> bool:
    """Whether an entry of the record is of a file as it is now."""
    before, now = entry.get('input'), state_of(path)
    if not before or not now or before[1:] != now[1:]:
        return False
    return before[0] == now[0] or real_path(Path(before[0])) == now[0]


def _path(entry: Mapping[str, Any]) -> str:
    return (entry.get('input') or ['a file that is gone'])[0]


def _above(key: str) -> list[str]:
    parts = key.split('/')
    return ['/'.join(parts[:i]) for i in range(1, len(parts))]
