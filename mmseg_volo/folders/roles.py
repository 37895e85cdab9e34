"""Which pictures are images and which are masks, and of which split, by the names of their folders or their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmseg_volo.errors import UsageError
from mmseg_volo.folders.pairing import MASK_ENDS, File
from mmseg_volo.folders.words import MASKS, Said, said_by, settle, without_begin, without_end
from mmseg_volo.kinds import PICTURES

PHOTOS = tuple(s for kind in ('JPEG', 'TIFF', 'BMP', 'AVIF', 'JPEG 2000') for s in PICTURES[kind])  # no masks beside
SURE_ENDS = tuple(word for word in MASK_ENDS if len(word) > 1)
SPLIT = '(train|training|val|valid|validation|test|testing)'
BY_NAME = re.compile(rf'{SPLIT}(?:[A-Z]?\d|[A-Z]?[_.\- ]).*|.*[_.\- ]{SPLIT}', re.IGNORECASE)


class NoMasks(UsageError):
    """Nothing among pictures is a mask."""


@dataclass(frozen=True)
class _Row:
    """A picture and what its folders say."""

    path: Path
    role: str | None
    split: str | None
    folder: tuple[str, ...]
    number: str
    said: str = ''  # the name of the folder that says the split

    def file(self, role: str) -> File:
        return File(self.path, role, self.split, self.folder, self.number)


def by_name(root: Path, files: Sequence[Path]) -> tuple[list[File], list[str]]:
    """Images and masks below a folder, and what is worth saying of their splits.

    Folders that hold other words beside those of a split or a role count where no folder is named plainly so.

    Raises:
        NoMasks: nothing tells masks from images.
    """
    said = {part: said_by(part) for path in files for part in path.relative_to(root).parent.parts}
    plain = {name: what if not what.rest else Said() for name, what in said.items()}
    splits = settle({what.split for what in said.values() if what.split})
    loose = {name for name, what in said.items() if what.split and what.rest and len({*splits.values()}) > 1}
    rows = [_row(path, root, plain, said, loose) for path in files]
    for role in ('mask', 'image'):
        if not any(row.role == role for row in rows):
            others = [_row(path, root, said, said, loose) for path in files]
            rows = [b if a.role is None and b.role == role else a for a, b in zip(rows, others, strict=True)]
    rows, notes = _settled(rows)
    if loose:
        notes.append(f'{", ".join(sorted(loose)[:5])}: taken for splits by a word in the name')
    if any(row.role == 'mask' for row in rows):  # pictures that nothing names are images, if none are named
        named = any(row.role == 'image' for row in rows)
        return [row.file(row.role or 'image') for row in rows if row.role or not named], notes
    return _by_file_name(rows), notes


def _row(path: Path, root: Path, roles: dict[str, Said], said: dict[str, Said], loose: set[str]) -> _Row:
    role = split = None
    number = name = ''
    folder = []
    for part in path.relative_to(root).parent.parts:
        what = roles[part]
        its_role = what.role if role in (None, what.role) or (role, what.role) == ('image', 'mask') else None
        its_split = said[part].split if not said[part].rest or part in loose else None
        its_split = its_split if split in (None, its_split) else None
        if its_role or its_split:
            folder += ['_'.join(said[part].rest)] * bool(said[part].rest)
        else:
            folder.append(part)
        if its_split and not split:
            number, name = said[part].number, part
        role, split = its_role or role, its_split or split
    return _Row(path, role, split, (*folder,), number, name)


def _settled(rows: Sequence[_Row]) -> tuple[list[_Row], list[str]]:
    """Rows with 'train', 'val', 'test' or None as their split."""
    meant = settle({row.split for row in rows})
    held_out = sorted({row.said for row in rows if row.split == 'eval'})
    notes = [held_out_note(held_out, meant['eval'])] if held_out else []
    return [_Row(r.path, r.role, meant[r.split], r.folder, r.number, r.said) for r in rows], notes


def held_out_note(names: Sequence[str], split: str | None) -> str:
    """What is said of folders or lists named `eval`, `holdout` and the like."""
    why = 'as validation has its own' if split == 'test' else 'as nothing else is named so'
    return f'{", ".join(names)} is taken for {"test" if split == "test" else "validation"}, {why}'


def _by_file_name(rows: Sequence[_Row]) -> list[File]:
    """Images and masks in the same folders: `a.jpg` with `a.png`, `a_mask.png` or `mask_a.png`, `s1/image.png`."""
    photos = [row for row in rows if row.path.suffix.lower() in PHOTOS]
    others = [row for row in rows if row.path.suffix.lower() not in PHOTOS]
    by_suffix = [*(row.file('image') for row in photos), *(row.file('mask') for row in others)]
    stems = [{(row.path.parent, row.path.stem) for row in some} for some in (photos, others)]
    if photos and stems[1] in (stems[0], {(row.path.parent, row.path.name) for row in photos}):
        return by_suffix
    for ends in (SURE_ENDS, MASK_ENDS):
        masks = {row.path for row in rows if _is_mask(row.path.stem, ends)}
        if 0 < len(masks) < len(rows):
            return [row.file('mask' if row.path in masks else 'image') for row in rows]
    if photos and others and stems[0] & stems[1]:
        return by_suffix
    raise NoMasks(
        f'{len(rows)} pictures, of which none is a mask by the name of its folder ({", ".join(MASKS[:5])}, ...) or its '
        f'own (a_mask.png), e.g. {rows[0].path}: say where they lie with --images FOLDER --masks FOLDER'
    )


def _is_mask(stem: str, words: Sequence[str]) -> bool:
    return without_end(stem, words) is not None or without_begin(stem, words) is not None


def by_option(root: Path, files: Sequence[Path], images: str | None, masks: str | None) -> tuple[list[File], list[str]]:
    """Images and masks of two folders that the user names.

    Raises:
        FileNotFoundError, UsageError: one of them is not given, or there is no such folder.
    """
    if not images or not masks:
        raise UsageError('--images and --masks are given together: the folders below --data, e.g. --images a --masks b')
    rows = []
    for role, given in (('image', images), ('mask', masks)):
        folder = root / given
        if not folder.is_dir():
            raise FileNotFoundError(f'--{role}s {given}: there is no folder {folder.absolute()}')
        inside = [path for path in files if folder in path.parents]
        said = {part: said_by(part) for path in inside for part in path.relative_to(folder).parent.parts}
        only = {name: Said(None, what.split, what.rest, what.number) for name, what in said.items()}
        found = [_row(path, folder, only, only, set()) for path in inside]
        rows += [_Row(row.path, role, row.split, row.folder, row.number, row.said) for row in found]
    rows, notes = _settled(rows)
    return [row.file(row.role or '') for row in rows], notes


def split_by_file_names(names: Sequence[str]) -> list[str | None]:
    """The split that each file's name begins or ends with, `testA_1`, `train_12`, `12_val`; None where it does not."""
    matches = [BY_NAME.fullmatch(name) for name in names]
    return [match and said_by(match[1] or match[2]).split for match in matches]
