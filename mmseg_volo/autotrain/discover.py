"""Find the images of a folder, their masks, and the split of each pair.

They follow from folder names at any level, in any order and case (`images/train`, `train/masks`, `train_labels`,
`imagesTr`, `trainannot`, `JPEGImages` beside `SegmentationClass`), from file names (`a.jpg` with `a_mask.png`), from
tables and JSON files that name image and mask, and from lists (`train.txt`, `ImageSets/Segmentation/val.txt`,
`split.csv`). Notes name the lists, tables and folders that are not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmseg_volo.autotrain.annotation_formats import annotation_of
from mmseg_volo.autotrain.folder_roles import NoMasks, by_name, by_option, split_by_file_names
from mmseg_volo.autotrain.list_entries import Listing, read_listing
from mmseg_volo.autotrain.name_words import Said, looks_like_split, said_by
from mmseg_volo.autotrain.pairing import File, Matched, Pair, match
from mmseg_volo.autotrain.redundant_masks import without_twins
from mmseg_volo.autotrain.split_lists import (
    PLACES,
    BareNames,
    Group,
    Index,
    OutsideError,
    choose_lists,
    folds_of,
    group,
    is_table,
    pairs_of,
    rank,
)
from mmseg_volo.autotrain.unpaired import complete
from mmseg_volo.autotrain.unused_files import unused
from mmseg_volo.datasets.lists import UNDERSTOOD
from mmseg_volo.errors import UsageError
from mmseg_volo.io.file_types import ARRAYS, TO_CONVERT, VIDEOS, FileCounts, walk_folders
from mmseg_volo.io.file_types import IMAGES as PICTURE_SUFFIXES

SUFFIXES = PICTURE_SUFFIXES + ARRAYS
SHOWN = 5
FEW = 20  # tables and lists of one kind in a folder, up to which all are read


@dataclass
class DiscoveredPairs:
    """The pairs of images and masks in a folder."""

    root: Path
    pairs: list[Pair]
    how: str  # found by what, in words
    notes: list[str] = field(default_factory=list)
    lists: set[Path] = field(default_factory=set)  # lists and tables that were used, or that notes mention
    unused: list[str] = field(default_factory=list)  # names of other lists, tables and folders

    @property
    def splits(self) -> Counter[str | None]:
        """Number of pairs of each split."""
        return Counter(pair.split for pair in self.pairs)


@dataclass
class _Files:
    """The files below a folder."""

    root: Path
    pictures: list[Path]
    others: list[Path]
    groups: list[Group]  # of lists and tables
    notes: list[str] = field(default_factory=list)
    noted: set[Path] = field(default_factory=set)  # files that the notes mention


def find_layout(
    root: Path,
    images: str | None = None,
    masks: str | None = None,
    skip_unpaired: bool = False,
    allow_outside: bool = False,
) -> DiscoveredPairs:
    """Find the images of a folder and their masks.

    Args:
        root: the folder, or a file that lists images and masks.
        images: folder of the images below it, if its name does not show that.
        masks: folder of the masks below it.
        skip_unpaired: leave out images without mask and masks without image.
        allow_outside: whether lists may name files outside of the folder.

    Raises:
        FileNotFoundError: there is no such folder.
        UsageError: there are no images or masks, some have no partner, two match the same partner, or a list names
            files outside of the folder.
    """
    if not root.exists():
        raise FileNotFoundError(f'no folder at {root.absolute()}: --data is the folder that holds images and masks')
    root = root.resolve() if '..' in root.parts else root
    if not root.is_dir():
        return _of_file(root, allow_outside)
    left = FileCounts()
    files = _scan(root, left)
    layout = None if images or masks else _by_tables(files, skip_unpaired, allow_outside)
    layout = layout or _by_names(files, images, masks, skip_unpaired)
    layout.lists |= files.noted
    used = layout.lists | {path for pair in layout.pairs for path in (pair.image, pair.mask) if path}
    layout.unused = unused(root, files.pictures + files.others, used)
    layout.notes += [*files.notes, *[str(left)] * bool(left)]
    return layout


def _of_file(path: Path, outside: bool) -> DiscoveredPairs:
    listing = read_listing(path, given=True)
    if not isinstance(listing, Listing) or not listing.has_masks:
        raise UsageError(f'--data {path} is neither a folder nor a CSV file with the columns image and mask')
    pairs, notes = complete(path.parent, pairs_of(Group([listing]), path.parent, outside), (), False)
    return DiscoveredPairs(path.parent, pairs, path.name, notes)


def _scan(root: Path, left: FileCounts) -> _Files:
    found = _Files(root, [], [], [])
    for _, _, here in walk_folders(root, left, _is_no_data):
        for file in (file for file in here if not file.name.startswith('.')):
            (found.pictures if file.suffix.lower() in SUFFIXES else found.others).append(file)
        for file in here:
            hidden = file.name.startswith('.')
            if hidden or file.suffix.lower() in TO_CONVERT + VIDEOS:
                left.add(file)
    if not found.pictures:
        names = sorted(p.name for p in root.iterdir())[:SHOWN]
        raise UsageError(f'--data {root}: no picture ({", ".join(SUFFIXES)}) below it; it holds {names or "nothing"}')
    found.pictures.sort()
    beside = Counter((path.parent, path.suffix.lower()) for path in found.others)
    listings = []
    for path in sorted(found.others):
        few = beside[path.parent, path.suffix.lower()] <= FEW
        listing = read_listing(path) if few or looks_like_split(path.stem) else None
        if isinstance(listing, str):
            found.notes.append(listing)
            found.noted.add(path)
        elif listing is not None:
            listings.append(listing)
    if folds := folds_of(listings):
        some = ', '.join(listing.path.relative_to(root).as_posix() for listing in folds[:SHOWN])
        more = ', ...' * (len(folds) > SHOWN)
        found.notes.append(
            f'{some}{more} are folds, and none is used: give lists (train.txt, val.txt) of the one meant'
        )
        found.noted |= {listing.path for listing in folds}
    found.groups = group([listing for listing in listings if listing not in folds], root)
    return found


def _is_no_data(folder: Path, real: str) -> bool:
    own = folder.name == 'mmseg_volo_cache' or (folder / UNDERSTOOD).is_file()  # a recipe holds lists of its own
    return folder.name.startswith('__') or own


def _by_tables(files: _Files, skip_unpaired: bool, outside: bool) -> DiscoveredPairs | None:
    """Return the pairs that tables or lists of images and masks name; None without such tables or lists."""
    root, tables = files.root, [table for table in files.groups if table.has_masks]
    tables = [table for table in tables if rank(table, root) == min(rank(t, root) for t in tables)]
    usual = bool(tables) and rank(tables[0], root)[0] < len(PLACES)
    if not tables or (len(tables) > 1 and not usual):
        return None
    if len(tables) > 1:
        names = ', '.join(map(str, tables))
        raise UsageError(f'{root} holds several tables of images ({names}): choose one with --data FILE')
    (table,) = tables
    try:
        pairs = pairs_of(table, root, outside)
    except OutsideError:
        raise
    except BareNames:
        return None
    except UsageError:
        if is_table(table) and usual:
            raise
        return None  # a plain list may hold names without folders
    beside = {pair.image.parent for pair in pairs}
    used = {path for pair in pairs for path in (pair.image, pair.mask)}
    unlisted = sum(path.parent in beside and path not in used for path in files.pictures)
    pairs, left = complete(root, pairs, (), skip_unpaired)
    notes = [
        *table.notes,
        *left,
        *[f'{unlisted} pictures beside the images are in no list and are left out'] * bool(unlisted),
    ]
    layout = DiscoveredPairs(root, pairs, str(table), notes, {listing.path for listing in table.listings})
    return _listed(layout, files.groups)[0] if layout.splits.keys() == {None} else layout


def _by_names(found: _Files, images: str | None, masks: str | None, skip_unpaired: bool) -> DiscoveredPairs:
    root = found.root
    try:
        if images or masks:
            files, notes = by_option(root, found.pictures, images, masks)
        else:
            files, notes = by_name(root, found.pictures)
        masks_of, twins = without_twins([file for file in files if file.role == 'mask'])
        matched = _matched(root, [file for file in files if file.role == 'image'], masks_of)
    except NoMasks as error:
        if annotations := annotation_of(found.others):
            raise UsageError(f'--data {root} holds no masks, but {annotations}') from error
        raise
    pairs = [Pair(i.path, m.path, i.split or m.split) for i, m in matched.pairs]
    pairs += [Pair(image.path, None, image.split) for image in matched.images]
    how = f'{_folders(root, matched.pairs[0])}, by name'
    layout = DiscoveredPairs(
        root, sorted(pairs, key=lambda p: str(p.image)), how, [*notes, *twins, *[matched.guess] * bool(matched.guess)]
    )
    layout, by_lists = _listed(layout, found.groups)
    if layout.splits.keys() == {None}:
        layout = _by_file_names(layout)
    lone_masks = [] if by_lists else [mask.path for mask in matched.masks]
    layout.pairs, left = complete(root, layout.pairs, lone_masks, skip_unpaired)
    layout.notes += [*left, *_unsplit(layout, files)]
    return layout


def _by_file_names(layout: DiscoveredPairs) -> DiscoveredPairs:
    """Return a layout with the splits that all image names begin or end with, if there are several."""
    splits = split_by_file_names([pair.image.stem for pair in layout.pairs])
    named = {*splits} - {None}
    if len(named) < 2:
        return layout
    if None in splits:
        example = next(pair.image for pair, split in zip(layout.pairs, splits, strict=True) if split)
        note = f'some names of images look like splits ({example.name}), others do not: none is used'
        return replace(layout, notes=[*layout.notes, note])
    pairs = [replace(pair, split=split) for pair, split in zip(layout.pairs, splits, strict=True)]
    return replace(layout, pairs=pairs, how=f'{layout.how}, splits by the names of files')


def _matched(root: Path, images: Sequence[File], masks: Sequence[File]) -> Matched:
    if not images or not masks:
        what, other = ('images', 'masks') if masks else ('masks', 'images')
        raise NoMasks(f'--data {root} holds {len(images or masks)} {other} and no {what}: see --images and --masks')
    matched = match(images, masks)
    if not matched.pairs:
        raise UsageError(
            f'--data {root}: no mask has the name of an image, e.g. {images[0].path} and {masks[0].path}; names '
            f'must agree without their suffixes; to use other folders, give --images FOLDER --masks FOLDER'
        )
    return matched


def _folders(root: Path, pair: Sequence[File]) -> str:
    """Return the folders of a pair, e.g. `SPLIT/images + SPLIT/masks`."""
    names = []
    for file in pair:
        parts = file.path.relative_to(root).parent.parts
        names.append('/'.join('SPLIT' if _is_split(said_by(part)) else part for part in parts) or root.name)
    return ' + '.join(names)


def _is_split(said: Said) -> bool:
    return said.split is not None and said.role is None and not said.rest


def _unsplit(layout: DiscoveredPairs, files: Sequence[File]) -> list[str]:
    """Return notes on images that are for training because their split is not known, or its name not recognised."""
    images = {pair.image for pair in layout.pairs if pair.split is None}
    folders = {name for file in files if file.path in images for name in file.folder}
    strange = sorted(name for name in folders if looks_like_split(name))
    notes = []
    if strange:
        notes.append(
            f'{", ".join(strange[:SHOWN])}{", ..." * (len(strange) > SHOWN)}: looks like a split but is not '
            f'recognised, so its images count as training images: name it train, val or test'
        )
    if images and len(layout.splits) > 1:
        where = sorted({path.parent.relative_to(layout.root).as_posix() for path in images})
        notes.append(f'{len(images)} images are of no split and count as training images ({", ".join(where[:SHOWN])})')
    return notes


def _listed(layout: DiscoveredPairs, groups: Sequence[Group]) -> tuple[DiscoveredPairs, bool]:
    """Return a layout with its splits by lists, and whether lists are used; not if folders name validation images."""
    if 'val' in layout.splits or not any(lists.splits - {None} for lists in groups):
        return layout, False
    choice = choose_lists(groups, Index(layout.root, layout.pairs))
    layout = replace(layout, notes=[*layout.notes, *choice.notes], lists={*layout.lists, *choice.paths})
    if choice.lists is None:
        return layout, False
    pairs, left = [], 0
    for i, pair in enumerate(layout.pairs):
        split = choice.splits.get(i)
        if split and pair.split not in (None, split, 'train'):
            raise UsageError(f'{pair.image} is in a folder of {pair.split} and in a list of {split}: keep one')
        if split:
            pairs.append(replace(pair, split=split))
        elif pair.split == 'test' or 'train' not in choice.splits.values():
            pairs.append(pair)
        else:
            left += 1
    layout.notes += [f'{left} images are in no list and are left out'] * bool(left)
    return replace(layout, pairs=pairs, how=f'{layout.how}, splits by {choice.lists}'), True
