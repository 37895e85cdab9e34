"""List the lists, tables and folders of a data set that are not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from mmseg_volo.autotrain.name_words import looks_like_split

LISTS: tuple[str, ...] = ('.txt', '.lst', '.list', '.csv', '.tsv', '.json', '.jsonl', '.xml', '.yaml', '.yml', '.xlsx')
LISTS += ('.npy', '.npz', '.pkl', '.mat', '.pbtxt')
SIDECAR = '.aux.xml'  # GDAL's, beside an image
PAPERS = ('readme', 'license', 'licence', 'copying', 'citation', 'changelog', 'requirements')  # about data, no data
SHOWN = 8
MANY = 3  # lists in one folder that are named one by one


def unused(root: Path, files: Sequence[Path], used: Collection[Path]) -> list[str]:
    """Name the folders without a used file, with a slash, and the unused lists and tables elsewhere.

    Args:
        root: folder of the data.
        files: all files below it.
        used: the files that are used.
    """
    kept = {folder for parent in {path.parent for path in used} for folder in (parent, *parent.parents)}
    tops: dict[Path, Path | None] = {}  # folder -> the highest one around it without a used file
    names: dict[str, None] = {}
    loose: dict[Path, list[Path]] = {}
    for path in sorted(files):
        folder = path.parent
        if folder not in tops:
            above = [up for up in (folder, *folder.parents) if up not in kept and up.is_relative_to(root)]
            tops[folder] = above[-1] if above else None
        if top := tops[folder]:
            names[f'{top.relative_to(root).as_posix()}/'] = None
        elif path not in used and _is_list(path.name.lower()):
            loose.setdefault(folder, []).append(path)
    for folder, paths in loose.items():
        for suffix, count in Counter(path.suffix for path in paths).items():
            some = [path.relative_to(root).as_posix() for path in paths if path.suffix == suffix]
            pattern = (folder.relative_to(root) / f'*{suffix}').as_posix()
            names.update(dict.fromkeys(some if count <= MANY else [f'{pattern} ({count} files)']))
    return [*names]


def _is_list(name: str) -> bool:
    return name.endswith(LISTS) and not name.endswith(SIDECAR) and not name.startswith(PAPERS)


def unused_notes(names: Sequence[str]) -> list[str]:
    """Return notes on unused names; those that look like a split get their own."""
    splits = [name for name in names if looks_like_split(name.rstrip('/').rpartition('/')[2])]
    others = [name for name in names if name not in splits]
    notes = []
    for what, some in (('not used, though named like a split', splits), ('not used', others)):
        if some:
            more = f' and {len(some) - SHOWN} more' * (len(some) > SHOWN)
            notes.append(f'{what}: {", ".join(some[:SHOWN])}{more}')
    return notes
