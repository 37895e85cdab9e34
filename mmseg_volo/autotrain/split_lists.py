"""Choose the lists of a data set to use, and find the files that their lines name."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmseg_volo.autotrain.folder_roles import held_out_note
from mmseg_volo.autotrain.list_entries import TABLES, Entry, Listing
from mmseg_volo.autotrain.name_words import IMAGES, SPLITS, settle, without_end
from mmseg_volo.autotrain.pairing import MASK_ENDS, Pair, plain
from mmseg_volo.errors import UsageError, printable
from mmseg_volo.io.text_files import local_path, unquoted

VOC = 'ImageSets/Segmentation'  # at any depth: beside it lie lists for other tasks
PLACES = ('', 'splits', 'split', 'lists', VOC, 'ImageSets')  # folders of lists, below the root
SHOWN = 5


class OutsideError(UsageError):
    """A list names a file outside of the folder of the data."""


class BareNames(UsageError):
    """None of the files that lists name exists at the path given."""


@dataclass(frozen=True)
class Group:
    """Lists that belong together: one for each split, or one of all."""

    listings: Sequence[Listing]

    @property
    def entries(self) -> list[tuple[Listing, Entry, str | None]]:
        """All lines, each with its split as written; without those of `trainval` if there is `train`."""
        rows = [(one, entry, entry.split or one.said.split) for one in self.listings for entry in one.entries]
        splits = {split for _, _, split in rows}
        rows = [row for row in rows if row[2] != 'trainval' or 'train' not in splits]
        return sorted(rows, key=lambda row: row[2] == 'trainval')

    @property
    def splits(self) -> set[str | None]:
        """The splits that it names."""
        return {split for _, _, split in self.entries}

    @property
    def has_masks(self) -> bool:
        """Whether it pairs images with masks, except test images."""
        return all(one.has_masks or one.said.split in ('test', 'eval') for one in self.listings) and any(
            one.has_masks for one in self.listings
        )

    @property
    def notes(self) -> list[str]:
        """Notes on its splits."""
        meant = settle(self.splits)
        names = sorted({one.path.name for one in self.listings if one.said.split == 'eval'})
        return [held_out_note(names, meant['eval'])] if names else []

    def __str__(self) -> str:
        return ', '.join(one.path.name for one in self.listings)


def group(listings: Iterable[Listing], root: Path) -> list[Group]:
    """Group lists that belong together, and sort the groups by `order`.

    Of several lists of one split in a folder, the one with the plainest name is used.
    """
    alone, by_folder = [], dict[Path, dict[str, Listing]]()
    for one in sorted(listings, key=lambda one: (len(one.said.rest), len(one.path.stem), one.path.name)):
        if one.has_splits or (one.has_masks and not one.said.split):
            alone.append(Group([one]))
        elif one.said.split:
            by_folder.setdefault(one.path.parent, {}).setdefault(one.said.split, one)
    groups = [Group([by_split[name] for name in SPLITS if name in by_split]) for by_split in by_folder.values()]
    if sum(len(one.listings) for one in groups) == len({split for one in groups for split in one.splits}):
        groups = [Group([listing for one in groups for listing in one.listings])] if groups else []  # train/train.txt
    return sorted([*groups, *alone], key=lambda one: order(one, root))


def order(one: Group, root: Path) -> tuple[bool, int, int]:
    """Return a sort key: lists with training images first, then those in the most usual folder."""
    return (not one.splits & {'train', 'trainval'}, *rank(one, root))


def rank(one: Group, root: Path) -> tuple[int, int]:
    """Return how usual the folder of lists is; smaller is more usual."""
    folder = one.listings[0].path.parent.relative_to(root)
    name = folder.as_posix() if folder.parts else ''
    if name.endswith(f'/{VOC}'):
        return PLACES.index(VOC), len(folder.parts)
    return (PLACES.index(name), 0) if name in PLACES else (len(PLACES), len(folder.parts))


def folds_of(listings: Iterable[Listing]) -> list[Listing]:
    """Return lists of cross-validation: of one split in a folder, with different numbers (`train_fold0.txt`)."""
    alike: dict[tuple, list[Listing]] = {}
    for one in listings:
        if one.said.number:
            alike.setdefault((one.path.parent, one.said.split, one.said.rest), []).append(one)
    return [one for some in alike.values() if len({one.said.number for one in some}) > 1 for one in some]


def pairs_of(one: Group, root: Path, outside: bool) -> list[Pair]:
    """Return the pairs that lists name.

    Args:
        one: lists of images and masks.
        root: folder of the data.
        outside: whether files may lie outside of it.

    Raises:
        BareNames: all files are missing.
        UsageError: a file lies outside of the folder, files are missing, an image has no mask or is listed twice.
    """
    meant = settle(one.splits)
    pairs: dict[Path, Pair] = {}
    masked = {meant[split] for _, entry, split in one.entries if entry.mask}
    needed, missing, lone = {'train', None} | ({'val'} & masked), [], []
    for listing, entry, split in one.entries:
        image = located(entry.image, listing, entry, root, outside)
        mask = located(entry.mask, listing, entry, root, outside) if entry.mask else None
        missing += [path for path in (image, mask) if path is not None and not path.is_file()]
        lone += [image] * (mask is None and meant[split] in needed)
        if image in pairs:
            if split == 'trainval':
                continue
            raise UsageError(f'{listing.path} names {image} twice: an image may be in one split only')
        pairs[image] = Pair(image, mask, meant[split])
    if len(missing) == sum(1 + (entry.mask is not None) for _, entry, _ in one.entries):
        raise BareNames(f'{one}: none of the files that it names exists, e.g. {missing[0]}')
    for what, files in (('names files that are missing', missing), ('names no mask for', lone)):
        if files:
            names = ', '.join(printable(str(path)) for path in files[:SHOWN])
            raise UsageError(
                f'{one.listings[0].path if len(one.listings) == 1 else one} {what}: {names}'
                f'{", ..." * (len(files) > SHOWN)}; complete them, or remove these lines'
            )
    return [*pairs.values()]


def located(text: str, listing: Listing, entry: Entry, root: Path, outside: bool) -> Path:
    """Return the file that a line names, relative to the list or to the folder of the data.

    Raises:
        OutsideError: its path as written leads out of the folder of the data; links inside may lead anywhere.
    """
    bases = dict.fromkeys((listing.path.parent, root))
    paths = [_tidy(local_path(text, base), base) for base in bases]
    inside = [path for path in paths if _below(path, root)]
    for path in inside + paths * outside:
        if os.path.exists(path):
            return path
    if not any(map(os.path.exists, paths)):
        return (inside or paths)[0]
    raise OutsideError(
        f'{listing.path}, {entry.where} names {unquoted(text)!r}, which lies outside of {root}: to use files '
        f'outside of the folder of the data, give --allow-outside'
    )


def _tidy(path: Path, base: Path) -> Path:
    """Return a path without `..`, resolved as text."""
    inner = os.path.normpath(path.relative_to(base)) if path.is_relative_to(base) else os.path.normpath(path)
    return Path(os.path.normpath(base / inner)) if inner.startswith('..') else base / inner


def _below(path: Path, root: Path) -> bool:
    tops = (os.path.abspath(root), os.path.realpath(root))
    return any(Path(os.path.abspath(path)).is_relative_to(top) for top in tops)


@dataclass
class Index:
    """Finds the pair that a line names: by the path of its image, the end of the path, or its name without suffix."""

    root: Path
    pairs: Sequence[Pair]
    tables: tuple[dict[str, set[int]], ...] = field(init=False)  # of images, masks, and names without known words

    def __post_init__(self) -> None:
        self.tables = ({}, {}, {})
        for number, pair in enumerate(self.pairs):
            for table, path, words in ((self.tables[0], pair.image, IMAGES), (self.tables[1], pair.mask, MASK_ENDS)):
                if path is None:
                    continue
                relative = path.relative_to(self.root) if path.is_relative_to(self.root) else Path(path.name)
                for name in (relative, relative.with_name(relative.stem)):
                    for tail in _tails(name.as_posix()):
                        table.setdefault(tail, set()).add(number)
                bare = relative.stem
                while shorter := without_end(bare, words):
                    bare = shorter
                    self.tables[2].setdefault(plain(bare), set()).add(number)

    def find(self, text: str) -> int | None:
        """Return the index in `pairs`; None if none or several match."""
        words = [text, *(word for mark in '\t,;' for word in text.split(mark)), *text.split()]
        for word in dict.fromkeys(words):
            for table in self.tables:
                for tail in _tails(unquoted(word).replace('\\', '/').removeprefix('file://')):
                    if len(indices := table.get(tail, ())) == 1:
                        return next(iter(indices))
                    if indices:
                        break
        return None


def _tails(name: str) -> list[str]:
    """Return `a/b/c`, `b/c`, `c` in the form of `plain`."""
    names = [n for n in plain(name).split('/') if n not in ('', '.')]
    return ['/'.join(names[start:]) for start in range(len(names))]


def splits_of(one: Group, index: Index) -> tuple[dict[int, str | None], Mapping[str, list[str]]]:
    """Return the split of each pair that lists name, by its index, and the names that match none, by list.

    Raises:
        UsageError: an image is in two lists, or a list gives it another mask.
    """
    meant = settle(one.splits)
    splits: dict[int, str | None] = {}
    unknown: dict[str, list[str]] = {}
    for listing, entry, split in one.entries:
        number = index.find(entry.image)
        if number is None:
            unknown.setdefault(f'{listing.path}: {meant[split]} list', []).append(entry.image)
            continue
        image, mask = index.pairs[number].image, index.pairs[number].mask
        if entry.mask and mask and plain(Path(entry.mask.replace('\\', '/')).stem) != plain(mask.stem):
            raise UsageError(
                f'{listing.path}, {entry.where} names {printable(entry.mask)} as the mask of {image.name}, which by '
                f'its name has {mask}: write paths relative to {index.root}'
            )
        if splits.setdefault(number, meant[split]) != meant[split] and split != 'trainval':
            raise UsageError(f'{image} is in the lists of {splits[number]} and {meant[split]}: keep one')
    return splits, unknown


@dataclass(frozen=True)
class Choice:
    """The lists that give the splits."""

    lists: Group | None = None
    splits: Mapping[int, str | None] = field(default_factory=dict)  # of each pair that they name, by its index
    notes: Sequence[str] = ()
    paths: Collection[Path] = ()  # of lists that are used, or that the notes mention


def choose_lists(groups: Sequence[Group], index: Index) -> Choice:
    """Choose the first lists that name any image; none if equally ranked ones give other splits.

    Raises:
        UsageError: they name images that do not exist, or an image is in two lists.
    """
    waiting = [one for one in groups if one.splits - {None}]
    while waiting:
        first = waiting.pop(0)
        splits, unknown = splits_of(first, index)
        if not splits:
            continue
        equal = [one for one in waiting if order(one, index.root) == order(first, index.root)]
        equal = [one for one in equal if splits_of(one, index)[0] not in ({}, splits)]
        paths = {listing.path for one in (first, *equal) for listing in one.listings}
        if equal:
            names = ' and '.join(str(one.listings[0].path) for one in (first, *equal[:SHOWN]))
            note = f'no list is used, as {names} say different splits: keep only those that are valid'
            return Choice(notes=[note], paths=paths)
        for what, missing in unknown.items():
            raise UsageError(
                f'{what}: {len(missing)} names are no image of {index.root}, e.g. {printable(missing[0])}; complete '
                f'the images, or remove these lines'
            )
        return Choice(first, splits, first.notes, paths)
    return Choice()


def is_table(one: Group) -> bool:
    """Whether a table is among the lists."""
    return any(listing.path.suffix.lower() in TABLES for listing in one.listings)
