"""Which files of a folder are images, which are their masks, and what is for training, validation and test.

Told by folder names at any level, in any order and case (`images/train`, `train/masks`, `train_labels`, `imagesTr`,
`JPEGImages` beside `SegmentationClass`), by names of files (`a.jpg` with `a_mask.png`), by a CSV file with columns
for image and mask, and by lists (`train.txt`, `ImageSets/Segmentation/val.txt`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmseg_volo.errors import UsageError
from mmseg_volo.folders.lists import read_csv, read_lists, split_of
from mmseg_volo.kinds import ARRAYS, PICTURES, TO_CONVERT, VIDEOS, Tally, folders
from mmseg_volo.kinds import IMAGES as PICTURE_SUFFIXES

IMAGES = ('images', 'image', 'img', 'imgs', 'photos', 'rgb', 'sat', 'x', 'jpegimages', 'leftimg', 'leftimgbit')
MASKS = ('masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'ann', 'anns', 'gt', 'groundtruth', 'y')
MASKS += ('segmentation', 'segmentations', 'seg', 'targets', 'target', 'segmentationclass', 'gtfine', 'lbl')
FILLERS = ('dir', 'dirs', 'data', 'dataset', 'set', 'png', 'jpg', 'folder', 'files', 'semantic', 'bit')
MASK_ENDS = (*MASKS, 'l', 'labelids', 'labeltrainids')  # of file names
SUFFIXES = PICTURE_SUFFIXES + ARRAYS
PHOTOS = tuple(s for kind in ('JPEG', 'TIFF', 'BMP', 'AVIF', 'JPEG 2000') for s in PICTURES[kind])  # no masks beside
SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """An image, its mask and what it is for."""

    image: Path
    mask: Path | None  # of test images only, there may be none
    split: str | None = None  # 'train', 'val', 'test'; None where nothing says it


@dataclass
class Layout:
    """What was found in a folder."""

    root: Path
    pairs: list[Pair]
    how: str  # by what, in words
    notes: list[str] = field(default_factory=list)

    @property
    def splits(self) -> Counter[str | None]:
        """How many pairs each split has."""
        return Counter(pair.split for pair in self.pairs)


def find_layout(root: Path, images: str | None = None, masks: str | None = None, skip_unpaired: bool = False) -> Layout:
    """The images of a folder with their masks.

    Args:
        root: the folder, or a CSV file.
        images: folder of the images below it, if its name does not say so.
        masks: folder of the masks below it.
        skip_unpaired: leave out images without mask and masks without image.

    Raises:
        FileNotFoundError: there is no such folder.
        UsageError: no images or masks are found, some have no partner, or two are one by their name.
    """
    if not root.exists():
        raise FileNotFoundError(f'no folder at {root.absolute()}: --data is the folder that holds images and masks')
    if (table := read_csv(root)) is not None:
        rows, path = table
        pairs = [Pair(*row) for row in rows]
        _complete(pairs, path)
        return Layout(root if root.is_dir() else root.parent, pairs, f'{path.name}')
    if not root.is_dir():
        raise UsageError(f'--data {root} is no folder, and no CSV file with the columns image and mask')
    left = Tally()
    files = _files(root, left)
    roles = _by_option(root, files, images, masks) if images or masks else _by_name(root, files)
    layout = _paired(root, roles, skip_unpaired)
    if layout.splits.keys() == {None}:
        layout = _listed(layout)
    layout.notes += [str(left)] * bool(left)
    return layout


@dataclass(frozen=True)
class _File:
    path: Path
    role: str  # 'image', 'mask'
    split: str | None
    key: str  # what an image and its mask share


def _files(root: Path, left: Tally) -> list[Path]:
    found = []
    for _, _, files in folders(root, left, _is_no_data):
        for file in files:
            if file.suffix.lower() in SUFFIXES and not file.name.startswith('.'):
                found.append(file)
            elif file.suffix.lower() in TO_CONVERT + VIDEOS or file.name.startswith('.'):
                left.add(file)
    if not found:
        here = sorted(p.name for p in root.iterdir())[:SHOWN]
        raise UsageError(f'--data {root}: no picture ({", ".join(SUFFIXES)}) below it; it holds {here or "nothing"}')
    return sorted(found)


def _is_no_data(folder: Path, real: str) -> bool:
    return folder.name.startswith('__') or folder.name == 'mmseg_volo_cache'


def _words(name: str) -> tuple[str | None, str | None] | None:
    """(Role, split) that the name of a folder says; None if it says something else."""
    split = None
    spaced = re.sub(r'(?<=[a-z])(?=(Tr|Ts)$)', '_', name)  # imagesTr
    words = [word for word in re.split(r'[^a-z]+', spaced.lower()) if word]
    role = 'mask' if {*words} & {*MASKS} else 'image' if {*words} & {*IMAGES} else None
    for word in words:
        if split is None and split_of(word):
            split = split_of(word)
        elif word not in FILLERS + MASKS + IMAGES:
            return None
    return (role, split) if role or split else None


def _by_name(root: Path, files: Sequence[Path]) -> list[_File]:
    rows = []
    for path in files:
        role = split = None
        rest = []
        for part in path.relative_to(root).parent.parts:
            said = _words(part)
            fits = said and not (said[0] and role) and not (said[1] and split)
            if fits:
                role, split = said[0] or role, said[1] or split
            else:
                rest.append(part)
        rows.append((path, role, split, '/'.join([*rest, path.stem])))
    if any(role == 'mask' for _, role, _, _ in rows):  # pictures that nothing names are images, if none are named
        named = any(role == 'image' for _, role, _, _ in rows)
        return [_File(p, r or 'image', s, k) for p, r, s, k in rows if r or not named]
    return _by_file_name([(p, s, k) for p, _, s, k in rows])


def _by_file_name(rows: Sequence[tuple[Path, str | None, str]]) -> list[_File]:
    """Images and masks in the same folders: `a.jpg` with `a_mask.png`, or with `a.png`."""
    found = [_File(p, 'mask' if _without_end(k, MASK_ENDS) != k else 'image', s, k) for p, s, k in rows]
    if any(f.role == 'mask' for f in found):
        return found
    suffixes = {path.suffix.lower() for path, _, _ in rows}
    photos = suffixes & {*PHOTOS}
    if photos and suffixes - photos and len({k for _, _, k in rows}) < len(rows):
        return [_File(p, 'image' if p.suffix.lower() in photos else 'mask', s, k) for p, s, k in rows]
    raise UsageError(
        f'{len(rows)} pictures, of which none is a mask by the name of its folder ({", ".join(MASKS[:5])}, ...) or its '
        f'own (a_mask.png), e.g. {rows[0][0]}: say where they lie with --images FOLDER --masks FOLDER'
    )


def _by_option(root: Path, files: Sequence[Path], images: str | None, masks: str | None) -> list[_File]:
    if not images or not masks:
        raise UsageError('--images and --masks are given together: the folders below --data, e.g. --images a --masks b')
    rows = []
    for role, given in (('image', images), ('mask', masks)):
        folder = root / given
        if not folder.is_dir():
            raise FileNotFoundError(f'--{role}s {given}: there is no folder {folder.absolute()}')
        for path in (p for p in files if folder in p.parents):
            split, rest = None, []
            for part in path.relative_to(folder).parent.parts:
                said = _words(part)
                if said and said[1] and not split:
                    split = said[1]
                else:
                    rest.append(part)
            rows.append(_File(path, role, split, '/'.join([*rest, path.stem])))
    return rows


def _without_end(key: str, words: Sequence[str]) -> str:
    """A key without the last parts of its name that are such words: `a/b_gt_mask` is `a/b`."""
    while (m := re.fullmatch(r'(.*[^_.\-])[_.\-]+([A-Za-z]+\d*[A-Za-z]*)', key)) and re.sub(
        r'\d', '', m[2].lower()
    ) in words:
        key = m[1]
    return key


def _paired(root: Path, files: Sequence[_File], skip_unpaired: bool) -> Layout:
    images, masks = ([f for f in files if f.role == role] for role in ('image', 'mask'))
    if not images or not masks:
        what, other = ('images', 'masks') if masks else ('masks', 'images')
        raise UsageError(f'--data {root}: {len(images or masks)} {other} and no {what}: see --images and --masks')
    exact = lambda f: f.key  # noqa: E731
    bare = lambda f: _without_end(f.key, MASK_ENDS if f.role == 'mask' else IMAGES)  # noqa: E731
    best = max((_match(images, masks, key) for key in (exact, bare)), key=lambda m: len(m[0]))
    pairs, lone_images, lone_masks = best
    trained = {f.split for _, f in pairs}
    tests = [f for f in lone_images if f.split == 'test' and 'test' not in trained]
    lone_images = [f for f in lone_images if f not in tests]
    problems = _lone('images have no mask', lone_images, root) + _lone('masks have no image', lone_masks, root)
    if not pairs:
        raise UsageError(
            f'--data {root}: no mask has the name of an image, e.g. {images[0].path} and {masks[0].path}; they must '
            f'agree without suffix'
        )
    if problems and not skip_unpaired:
        raise UsageError(f'{"; ".join(problems)}; complete or remove them, or leave them out with --skip-unpaired')
    found = [Pair(i.path, m.path, i.split or m.split) for i, m in pairs]
    found += [Pair(f.path, None, 'test') for f in tests]
    notes = [f'left out: {problem}' for problem in problems]
    notes += [f'{len(tests)} test images have no mask and are not scored'] * bool(tests)
    return Layout(root, sorted(found, key=lambda p: str(p.image)), f'{_folders(root, pairs[0])}, by name', notes)


def _folders(root: Path, pair: Sequence[_File]) -> str:
    """Where a pair lies, e.g. `SPLIT/images + SPLIT/masks`."""
    names = []
    for file in pair:
        parts = file.path.relative_to(root).parent.parts
        names.append('/'.join('SPLIT' if split_of(part) else part for part in parts) or root.name)
    return ' + '.join(names)


def _match(
    images: Sequence[_File], masks: Sequence[_File], key: Callable[[_File], str]
) -> tuple[list[tuple[_File, _File]], list[_File], list[_File]]:
    tables: list[dict[tuple, _File]] = []
    # where only one of the two lies in folders of splits, the other has all in one
    split = {f.split for f in images} == {f.split for f in masks}
    for files in (images, masks):
        table: dict[tuple, _File] = {}
        for file in files:
            other = table.setdefault((file.split if split else None, key(file)), file)
            if other is not file:
                raise UsageError(
                    f'{other.path} and {file.path} are one {file.role} by their name: rename or remove one, or say '
                    f'with --images FOLDER --masks FOLDER which are meant'
                )
        tables.append(table)
    one, two = tables
    pairs = [(one[k], two[k]) for k in one if k in two]
    return pairs, [f for k, f in one.items() if k not in two], [f for k, f in two.items() if k not in one]


def _lone(what: str, files: Sequence[_File], root: Path) -> list[str]:
    names = [str(f.path.relative_to(root)) for f in files]
    return [f'{len(names)} {what} ({", ".join(names[:SHOWN])}{", ..." * (len(names) > SHOWN)})'] if names else []


def _complete(pairs: Sequence[Pair], path: Path) -> None:
    if not pairs:
        raise UsageError(f'{path} lists no image')
    lone = [pair.image for pair in pairs if pair.mask is None and pair.split != 'test']
    missing = [p for pair in pairs for p in (pair.image, pair.mask) if p is not None and not p.is_file()]
    for what, files in (('names files that are missing', missing), ('names no mask for', lone)):
        if files:
            raise UsageError(f'{path} {what}: {", ".join(map(str, files[:SHOWN]))}{", ..." * (len(files) > SHOWN)}')
    seen: set[Path] = set()
    for pair in pairs:
        if pair.image in seen:
            raise UsageError(f'{path} names {pair.image} twice: an image belongs to one split')
        seen.add(pair.image)


def _listed(layout: Layout) -> Layout:
    """The splits of a layout by lists, if there are some."""
    lists = read_lists(layout.root)
    if 'train' not in lists:
        return layout
    places: dict[str, list[Pair]] = {}
    for pair in layout.pairs:
        relative = pair.image.relative_to(layout.root)
        for name in {str(relative), str(relative.with_suffix('')), pair.image.name, pair.image.stem}:
            places.setdefault(name, []).append(pair)
    found: dict[Path, Pair] = {}
    for split, lines in lists.items():
        names = [line if line in places else line.split()[0].lstrip('/') for line in lines]
        unknown = [name for name in names if len(places.get(name, ())) != 1]
        if unknown:
            raise UsageError(f'{split} list: {len(unknown)} names are no image of {layout.root}, e.g. {unknown[0]}')
        for name in names:
            (pair,) = places[name]
            if pair.image in found and found[pair.image].split != split:
                raise UsageError(f'{pair.image} is in the lists of {found[pair.image].split} and {split}: keep one')
            found[pair.image] = Pair(pair.image, pair.mask, split)
    left = len(layout.pairs) - len(found)
    notes = [*layout.notes, *[f'{left} images are in no list and are left out'] * bool(left)]
    pairs = [found[pair.image] for pair in layout.pairs if pair.image in found]
    return Layout(layout.root, pairs, f'{layout.how}, splits by lists', notes)
