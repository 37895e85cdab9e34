"""Tell images from masks, and their splits, by the names of folders and files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmseg_volo.autotrain.name_words import MASKS, Said, said_by, settle, without_begin, without_end
from mmseg_volo.autotrain.pairing import MASK_ENDS, File
from mmseg_volo.errors import UsageError
from mmseg_volo.io.file_types import PICTURES

PHOTOS = tuple(
    s for kind in ('JPEG', 'TIFF', 'BMP', 'AVIF', 'JPEG 2000') for s in PICTURES[kind]
)  # never masks of images beside them
SURE_ENDS = tuple(word for word in MASK_ENDS if len(word) > 1)
SPLIT = '(train|training|val|valid|validation|test|testing)'
BY_NAME = re.compile(rf'{SPLIT}(?:[A-Z]?\d|[A-Z]?[_.\- ]).*|.*[_.\- ]{SPLIT}', re.IGNORECASE)


class NoMasks(UsageError):
    """None of the pictures is a mask."""


@dataclass(frozen=True)
class _Folder:
    """Role and split of a folder, by its name and those of its parents."""

    role: str | None
    split: str | None
    rest: tuple[str, ...]  # names that show neither
    number: str
    name: str = ''  # of the folder that names the split

    def file(self, path: Path, role: str) -> File:
        return File(path, role, self.split, self.rest, self.number)


def by_name(root: Path, files: Sequence[Path]) -> tuple[list[File], list[str]]:
    """Tell the images and masks below a folder by the names of their folders, and return notes on their splits.

    A folder with further words in its name counts only if no folder is plainly named by a role or split.

    Raises:
        NoMasks: no name tells masks from images.
    """
    parents = {path.parent for path in files}
    meanings = {name: said_by(name) for parent in parents for name in parent.relative_to(root).parts}
    holders = _holders(root, parents, meanings)
    meanings |= {name: Said(split=meanings[name].split, rest=(name,)) for name in holders}
    plain = {name: meaning if not meaning.rest else Said() for name, meaning in meanings.items()}
    splits = settle({meaning.split for meaning in meanings.values() if meaning.split})
    several = len({*splits.values()}) > 1
    loose = {name for name, meaning in meanings.items() if meaning.split and meaning.rest and several}
    folders = {parent: _folder(parent, root, plain, meanings, loose) for parent in parents}
    for role in ('mask', 'image'):
        if all(folder.role != role for folder in folders.values()):
            others = {parent: _folder(parent, root, meanings, meanings, loose) for parent in parents}
            better = {parent for parent in parents if folders[parent].role is None and others[parent].role == role}
            folders |= {parent: others[parent] for parent in better}
    folders, notes = _settled(folders)
    if loose:
        notes.append(f'{", ".join(sorted(loose)[:5])}: taken for splits by a word in the name')
    roles = {folder.role for folder in folders.values()}
    if 'mask' not in roles:
        return _by_file_name(files, folders), notes
    rows = [(path, folders[path.parent]) for path in files]
    unnamed = 'image' not in roles  # if no folder is named as images, all other pictures are
    # `test/` beside `train/images`, `train/masks`
    tests = all(at.split != 'test' for at in folders.values() if at.role)
    return [
        at.file(path, at.role or 'image') for path, at in rows if at.role or unnamed or tests and at.split == 'test'
    ], notes


def _holders(root: Path, parents: Iterable[Path], meanings: Mapping[str, Said]) -> list[str]:
    """List folders named as masks that hold folders of images and of masks: `seg/images` beside `seg/labels`."""
    below: dict[str, set[str | None]] = {}
    for parent in parents:
        names = parent.relative_to(root).parts
        for depth, name in enumerate(names):
            if meanings[name].role == 'mask':
                below.setdefault(name, set()).update(meanings[inner].role for inner in names[depth + 1 :])
    return [name for name, roles in below.items() if {'image', 'mask'} <= roles]


def _folder(path: Path, root: Path, roles: dict[str, Said], meanings: dict[str, Said], loose: set[str]) -> _Folder:
    role = split = None
    number = name = ''
    rest: list[str] = []
    for part in path.relative_to(root).parts:
        meaning = roles[part]
        its_role = meaning.role if role in (None, meaning.role) or (role, meaning.role) == ('image', 'mask') else None
        its_split = meanings[part].split if not meanings[part].rest or part in loose else None
        its_split = its_split if split in (None, its_split) else None
        if its_role or its_split:
            rest += ['_'.join(meanings[part].rest)] * bool(meanings[part].rest)
        else:
            rest.append(part)
        if its_split and not split:
            number, name = meanings[part].number, part
        role, split = its_role or role, its_split or split
    return _Folder(role, split, (*rest,), number, name)


def _settled(folders: dict[Path, _Folder]) -> tuple[dict[Path, _Folder], list[str]]:
    """Set the split of each folder to 'train', 'val', 'test' or None, and return notes."""
    meant = settle({folder.split for folder in folders.values()})
    held_out = sorted({folder.name for folder in folders.values() if folder.split == 'eval'})
    notes = [held_out_note(held_out, meant['eval'])] if held_out else []
    return {path: replace(folder, split=meant[folder.split]) for path, folder in folders.items()}, notes


def held_out_note(names: Sequence[str], split: str | None) -> str:
    """Return a note on folders or lists named `eval`, `holdout` and the like."""
    why = 'as there is a validation split' if split == 'test' else 'as there is no validation split'
    return f'{", ".join(names)} is taken for {"test" if split == "test" else "validation"}, {why}'


def _by_file_name(files: Sequence[Path], folders: dict[Path, _Folder]) -> list[File]:
    """Tell images and masks in one folder: `a.jpg` with `a.png`, `a_mask.png` or `mask_a.png`, `s1/image.png`."""
    photos = [path for path in files if path.suffix.lower() in PHOTOS]
    others = [path for path in files if path.suffix.lower() not in PHOTOS]
    by_suffix = [
        folders[path.parent].file(path, 'image' if path.suffix.lower() in PHOTOS else 'mask') for path in files
    ]
    stems = [{path.with_suffix('') for path in some} for some in (photos, others)]
    if photos and stems[1] in (stems[0], {*photos}):
        return by_suffix
    for ends in (SURE_ENDS, MASK_ENDS):
        masks = {path for path in files if _is_mask(path.stem, ends)}
        if 0 < len(masks) < len(files):
            return [folders[path.parent].file(path, 'mask' if path in masks else 'image') for path in files]
    if stems[0] & stems[1]:
        return by_suffix
    raise NoMasks(
        f'{len(files)} pictures, of which none is a mask by the name of its folder ({", ".join(MASKS[:5])}, ...) or '
        f'its own (a_mask.png), e.g. {files[0]}: give their folders with --images FOLDER --masks FOLDER'
    )


def _is_mask(stem: str, words: Sequence[str]) -> bool:
    return without_end(stem, words) is not None or without_begin(stem, words) is not None


def by_option(root: Path, files: Sequence[Path], images: str | None, masks: str | None) -> tuple[list[File], list[str]]:
    """List the images and masks of two folders that the user names, and return notes on their splits.

    Raises:
        FileNotFoundError, UsageError: one of them is not given, or does not exist.
    """
    if not images or not masks:
        raise UsageError('give --images and --masks together, as folders below --data: e.g. --images a --masks b')
    inside: list[tuple[Path, str]] = []
    folders: dict[Path, _Folder] = {}
    for role, name in (('image', images), ('mask', masks)):
        folder = root / name
        if not folder.is_dir():
            raise FileNotFoundError(f'--{role}s {name}: there is no folder {folder.absolute()}')
        below = [path for path in files if path.is_relative_to(folder)]
        meanings = {name: said_by(name) for path in below for name in path.relative_to(folder).parent.parts}
        splits = {name: replace(what, role=None) for name, what in meanings.items()}
        folders |= {
            parent: _folder(parent, folder, splits, splits, set()) for parent in {path.parent for path in below}
        }
        inside += [(path, role) for path in below]
    folders, notes = _settled(folders)
    return [folders[path.parent].file(path, role) for path, role in inside], notes


def split_by_file_names(names: Sequence[str]) -> list[str | None]:
    """Return the split that each file name begins or ends with, `testA_1`, `train_12`, `12_val`; None without one."""
    matches = [BY_NAME.fullmatch(name) for name in names]
    return [match and said_by(match[1] or match[2]).split for match in matches]
