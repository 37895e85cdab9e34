"""Which pictures are images and which are masks, and of which split, by the names of their folders or their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmseg_volo.autotrain.name_words import MASKS, Said, said_by, settle, without_begin, without_end
from mmseg_volo.autotrain.pairing import MASK_ENDS, File
from mmseg_volo.errors import UsageError
from mmseg_volo.io.file_types import PICTURES

PHOTOS = tuple(s for kind in ('JPEG', 'TIFF', 'BMP', 'AVIF', 'JPEG 2000') for s in PICTURES[kind])  # no masks beside
SURE_ENDS = tuple(word for word in MASK_ENDS if len(word) > 1)
SPLIT = '(train|training|val|valid|validation|test|testing)'
BY_NAME = re.compile(rf'{SPLIT}(?:[A-Z]?\d|[A-Z]?[_.\- ]).*|.*[_.\- ]{SPLIT}', re.IGNORECASE)


class NoMasks(UsageError):
    """Nothing among pictures is a mask."""


@dataclass(frozen=True)
class _Folder:
    """What the names of a folder and of those above it say."""

    role: str | None
    split: str | None
    rest: tuple[str, ...]  # parts that say neither
    number: str
    name: str = ''  # of the folder that says the split

    def file(self, path: Path, role: str) -> File:
        return File(path, role, self.split, self.rest, self.number)


def by_name(root: Path, files: Sequence[Path]) -> tuple[list[File], list[str]]:
    """Images and masks below a folder, and what is worth saying of their splits.

    Folders that hold other words beside those of a split or a role count where no folder is named plainly so.

    Raises:
        NoMasks: nothing tells masks from images.
    """
    parents = {path.parent for path in files}
    said = {part: said_by(part) for parent in parents for part in parent.relative_to(root).parts}
    said |= {part: Said(split=said[part].split, rest=(part,)) for part in _holders(root, parents, said)}
    plain = {name: what if not what.rest else Said() for name, what in said.items()}
    splits = settle({what.split for what in said.values() if what.split})
    loose = {name for name, what in said.items() if what.split and what.rest and len({*splits.values()}) > 1}
    found = {parent: _folder(parent, root, plain, said, loose) for parent in parents}
    for role in ('mask', 'image'):
        if all(folder.role != role for folder in found.values()):
            others = {parent: _folder(parent, root, said, said, loose) for parent in parents}
            better = {parent for parent in parents if found[parent].role is None and others[parent].role == role}
            found |= {parent: others[parent] for parent in better}
    found, notes = _settled(found)
    if loose:
        notes.append(f'{", ".join(sorted(loose)[:5])}: taken for splits by a word in the name')
    roles = {folder.role for folder in found.values()}
    if 'mask' not in roles:
        return _by_file_name(files, found), notes
    rows = [(path, found[path.parent]) for path in files]
    unnamed = 'image' not in roles  # pictures that nothing names are images, if none are named
    tests = all(at.split != 'test' for at in found.values() if at.role)  # `test/` beside `train/images`, `train/masks`
    return [
        at.file(path, at.role or 'image') for path, at in rows if at.role or unnamed or tests and at.split == 'test'
    ], notes


def _holders(root: Path, parents: Iterable[Path], said: Mapping[str, Said]) -> list[str]:
    """Names of folders that say masks, and hold folders of images and of masks: `seg/images` beside `seg/labels`."""
    below: dict[str, set[str | None]] = {}
    for parent in parents:
        parts = parent.relative_to(root).parts
        for depth, part in enumerate(parts):
            if said[part].role == 'mask':
                below.setdefault(part, set()).update(said[inner].role for inner in parts[depth + 1 :])
    return [part for part, roles in below.items() if {'image', 'mask'} <= roles]


def _folder(path: Path, root: Path, roles: dict[str, Said], said: dict[str, Said], loose: set[str]) -> _Folder:
    role = split = None
    number = name = ''
    rest: list[str] = []
    for part in path.relative_to(root).parts:
        what = roles[part]
        its_role = what.role if role in (None, what.role) or (role, what.role) == ('image', 'mask') else None
        its_split = said[part].split if not said[part].rest or part in loose else None
        its_split = its_split if split in (None, its_split) else None
        if its_role or its_split:
            rest += ['_'.join(said[part].rest)] * bool(said[part].rest)
        else:
            rest.append(part)
        if its_split and not split:
            number, name = said[part].number, part
        role, split = its_role or role, its_split or split
    return _Folder(role, split, (*rest,), number, name)


def _settled(found: dict[Path, _Folder]) -> tuple[dict[Path, _Folder], list[str]]:
    """Folders with 'train', 'val', 'test' or None as their split, and notes."""
    meant = settle({folder.split for folder in found.values()})
    held_out = sorted({folder.name for folder in found.values() if folder.split == 'eval'})
    notes = [held_out_note(held_out, meant['eval'])] if held_out else []
    return {path: replace(folder, split=meant[folder.split]) for path, folder in found.items()}, notes


def held_out_note(names: Sequence[str], split: str | None) -> str:
    """What is said of folders or lists named `eval`, `holdout` and the like."""
    why = 'as validation has its own' if split == 'test' else 'as nothing else is named so'
    return f'{", ".join(names)} is taken for {"test" if split == "test" else "validation"}, {why}'


def _by_file_name(files: Sequence[Path], found: dict[Path, _Folder]) -> list[File]:
    """Images and masks in the same folders: `a.jpg` with `a.png`, `a_mask.png` or `mask_a.png`, `s1/image.png`."""
    photos = [path for path in files if path.suffix.lower() in PHOTOS]
    others = [path for path in files if path.suffix.lower() not in PHOTOS]
    by_suffix = [found[path.parent].file(path, 'image' if path.suffix.lower() in PHOTOS else 'mask') for path in files]
    stems = [{path.with_suffix('') for path in some} for some in (photos, others)]
    if photos and stems[1] in (stems[0], {*photos}):
        return by_suffix
    for ends in (SURE_ENDS, MASK_ENDS):
        masks = {path for path in files if _is_mask(path.stem, ends)}
        if 0 < len(masks) < len(files):
            return [found[path.parent].file(path, 'mask' if path in masks else 'image') for path in files]
    if stems[0] & stems[1]:
        return by_suffix
    raise NoMasks(
        f'{len(files)} pictures, of which none is a mask by the name of its folder ({", ".join(MASKS[:5])}, ...) or '
        f'its own (a_mask.png), e.g. {files[0]}: say where they lie with --images FOLDER --masks FOLDER'
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
    inside: list[tuple[Path, str]] = []
    found: dict[Path, _Folder] = {}
    for role, given in (('image', images), ('mask', masks)):
        folder = root / given
        if not folder.is_dir():
            raise FileNotFoundError(f'--{role}s {given}: there is no folder {folder.absolute()}')
        below = [path for path in files if path.is_relative_to(folder)]
        said = {part: said_by(part) for path in below for part in path.relative_to(folder).parent.parts}
        splits = {name: replace(what, role=None) for name, what in said.items()}
        found |= {parent: _folder(parent, folder, splits, splits, set()) for parent in {path.parent for path in below}}
        inside += [(path, role) for path in below]
    found, notes = _settled(found)
    return [found[path.parent].file(path, role) for path, role in inside], notes


def split_by_file_names(names: Sequence[str]) -> list[str | None]:
    """The split that each file's name begins or ends with, `testA_1`, `train_12`, `12_val`; None where it does not."""
    matches = [BY_NAME.fullmatch(name) for name in names]
    return [match and said_by(match[1] or match[2]).split for match in matches]
