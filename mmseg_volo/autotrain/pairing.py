"""Pair images and masks by their names.

Names that agree exactly come first, and their pairs are final. Files left over are matched by ever wider rules: another
split or case of letters, words of a mask or an image at the end or the beginning (`a.jpg` with `a_mask.png`),
a channel number at the end of every image, parts that all have in common, the folder alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmseg_volo.autotrain.multi_file_masks import several_per_image
from mmseg_volo.autotrain.name_words import IMAGES, MASKS, without_begin, without_end
from mmseg_volo.errors import UsageError

MASK_ENDS = (*MASKS, 'l', 'labelids', 'labeltrainids')  # of file names
STRIPPED = 3  # words at most
CHANNEL = re.compile(r'_\d{4}$')  # nnU-Net's
Key = Callable[['File'], Hashable | None]  # None: the file does not take part


@dataclass(frozen=True)
class Pair:
    """An image, its mask and its split."""

    image: Path
    mask: Path | None  # None for test images only
    split: str | None = None  # 'train', 'val', 'test'; None if unknown


@dataclass(frozen=True)
class File:
    """An image or a mask, and the meaning of its folders."""

    path: Path
    role: str  # 'image', 'mask'
    split: str | None
    folder: tuple[str, ...] = ()  # names of its folders without those of split and role
    number: str = ''  # in the name of the folder of its split

    @cached_property
    def place(self) -> tuple[str, ...]:
        """Its folder in the form of `plain`."""
        return tuple(map(plain, self.folder))

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """Its stem, and the stem without one word at its end, two, ...; each in the form of `plain`."""
        stems: list[str] = [self.path.stem]
        words = MASK_ENDS if self.role == 'mask' else IMAGES
        while stems[-1] and (shorter := without_end(stems[-1], words)) is not None:
            stems.append(shorter)
        return tuple(map(plain, stems))


@dataclass(frozen=True)
class Matched:
    """The pairs, and the files without partner."""

    pairs: list[tuple[File, File]]  # image, mask
    images: list[File]
    masks: list[File]
    guess: str = ''  # a note on how names were read, if known words were not enough


def match(images: Sequence[File], masks: Sequence[File]) -> Matched:
    """Pair images and masks, each with at most one.

    Raises:
        UsageError: several files match the same partner; names them.
    """
    pairs, left = _rounds(_sure(), dict(image=[*images], mask=[*masks]))
    guess = ''
    if not pairs and (fault := several_per_image(*([(f.folder, f.path) for f in files] for files in (images, masks)))):
        raise UsageError(fault)
    if not pairs:  # one data set has one way of naming: wide rules are not tried for a few files left over
        pairs, left = _rounds(_wide(images), left)
    if not pairs:
        pairs = _alone_in_folders(images, masks)
        left = _without(left, pairs)
    if not pairs:
        pairs, guess = _by_common_parts(images, masks)
        left = _without(left, pairs)
    return Matched(pairs, left['image'], left['mask'], guess)


def _rounds(keys: Iterable[Key], left: dict[str, list[File]]) -> tuple[list[tuple[File, File]], dict[str, list[File]]]:
    pairs: list[tuple[File, File]] = []
    for key in keys:
        for scope in (_same_split, _any_split):
            if not left['image'] or not left['mask']:
                return pairs, left
            if found := _agree(left['image'], left['mask'], scope(key, left)):
                pairs += found
                left = _without(left, found)
    return pairs, left


def _without(left: dict[str, list[File]], pairs: Sequence[tuple[File, File]]) -> dict[str, list[File]]:
    taken = {file.path for pair in pairs for file in pair}
    return {role: [file for file in files if file.path not in taken] for role, files in left.items()}


def _sure() -> Iterator[Key]:
    """Yield the keys that an image shares with its mask, the surest first."""
    yield lambda f: (f.number, f.folder, f.path.stem)
    yield lambda f: (f.folder, f.path.stem)
    yield lambda f: (f.place, f.stems[0])
    yield lambda f: (f.place, plain(f.path.name) if f.role == 'image' else f.stems[0])  # a.jpg, a.jpg.png
    yield from _bare(lambda f: f.place)


def _wide(images: Sequence[File]) -> Iterator[Key]:
    """Yield the keys that an image may share with its mask if no surer key pairs any."""
    for place in (lambda f: f.place, lambda f: ()):
        yield from _bare(place)
        if all(CHANNEL.search(image.stems[0]) for image in images):
            yield _without_channel(place)


def _bare(place: Key) -> Iterator[Key]:
    """Yield stems without known words at their ends, the fewest first; then without all at both ends."""
    for total in range(2 * STRIPPED + 1):
        for of_image in range(min(total, STRIPPED) + 1):
            if total - of_image <= STRIPPED:
                yield _stripped(place, dict(image=of_image, mask=total - of_image))
    yield _without_words(place)


def _stripped(place: Key, words: dict[str, int]) -> Key:
    """Return a key of stems without so many words at their ends."""

    def key(file: File) -> Hashable | None:
        count = words[file.role]
        return (place(file), file.stems[count]) if count < len(file.stems) else None

    return key


def _without_words(place: Key) -> Key:
    """Return a key of stems without known words at both ends: `img_01` with `mask_01`, `image` with `mask`."""

    def key(file: File) -> Hashable | None:
        stem, words = file.stems[-1], MASK_ENDS if file.role == 'mask' else IMAGES
        while (shorter := without_begin(stem, words)) is not None:
            stem = shorter
        at = place(file)
        return (at, stem) if stem or at else None

    return key


def _without_channel(place: Key) -> Key:
    """Return a key of the stems of masks, and of images without their channel number (nnU-Net's `_0000`)."""
    return lambda f: (place(f), CHANNEL.sub('', f.stems[0]) if f.role == 'image' else f.stems[0])


def _same_split(key: Key, left: dict[str, list[File]]) -> Key:
    return lambda f: None if (k := key(f)) is None else (f.split, k)


def _any_split(key: Key, left: dict[str, list[File]]) -> Key:
    """Match across splits if only images or only masks lie in folders of splits."""
    whole = [role for role, files in left.items() if all(file.split is None for file in files)]
    return key if whole else lambda f: None


def plain(text: str) -> str:
    """Return text in lower case and normal form (NFC), for comparing file names."""
    return unicodedata.normalize('NFC', text).casefold()


def _agree(images: Sequence[File], masks: Sequence[File], key: Key) -> list[tuple[File, File]]:
    tables: list[dict[Hashable, list[File]]] = []
    for files in (images, masks):
        table: dict[Hashable, list[File]] = {}
        for file in files:
            if (k := key(file)) is not None:
                table.setdefault(k, []).append(file)
        tables.append(table)
    images_of, masks_of = tables
    pairs = []
    for k in (k for k in images_of if k in masks_of):
        for same in (images_of[k], masks_of[k]):
            if len(same) > 1:
                raise UsageError(_several(images_of[k], masks_of[k], same))
        pairs.append((images_of[k][0], masks_of[k][0]))
    return pairs


def _several(images: Sequence[File], masks: Sequence[File], same: Sequence[File]) -> str:
    first, second = same[0], same[1]
    if len(images) > 1 and all(CHANNEL.search(image.path.stem) for image in images):
        return (
            f'{first.path} and {second.path} are channels of one image, as nnU-Net writes them: stack them into one '
            f'TIFF or .npy file of several channels, which is read as such'
        )
    partner = (masks if first.role == 'image' else images)[0]
    return (
        f'{first.path} and {second.path} both match {partner.path}: rename or remove one, or choose folders with '
        f'--images FOLDER --masks FOLDER'
    )


def _alone_in_folders(images: Sequence[File], masks: Sequence[File]) -> list[tuple[File, File]]:
    """Pair by folder, if each holds at most one image and one mask."""
    image_of, mask_of = ({(f.split, f.place): f for f in files if f.place} for files in (images, masks))
    if len(image_of) < len(images) or len(mask_of) < len(masks):
        return []
    return [(image_of[k], mask_of[k]) for k in image_of if k in mask_of]


def _by_common_parts(images: Sequence[File], masks: Sequence[File]) -> tuple[list[tuple[File, File]], str]:
    """Pair by names without the first or last segment that all images, or all masks, have in common.

    Apply only if this pairs all masks: `21_training.tif` with `21_manual1.gif`.
    """
    cuts = dict(image=_common(images), mask=_common(masks))
    if len(images) < 2 or not any(map(any, cuts.values())):
        return [], ''

    def key(file: File, deep: bool) -> Hashable:
        start, end = cuts[file.role]
        stem = file.path.stem.removeprefix(start).removesuffix(end)
        while end and (shorter := without_end(stem, MASK_ENDS if file.role == 'mask' else IMAGES)):
            stem = shorter
        return file.split, file.place * deep, plain(stem)

    for deep in (True, False):
        image_of, mask_of = ({key(file, deep): file for file in files} for files in (images, masks))
        if len(image_of) == len(images) and len(mask_of) == len(masks) and mask_of.keys() <= image_of.keys():
            patterns = ' with '.join(f'{start}*{end}' for start, end in cuts.values())
            note = f'names are matched as {patterns}: rename files if that is wrong'
            return [(image_of[k], mask_of[k]) for k in mask_of], note
    return [], ''


def _common(files: Sequence[File]) -> tuple[str, str]:
    """Return the segments, with a separator, that all stems start and end with."""
    stems = [re.split(r'([_.\- ]+)', file.path.stem) for file in files]
    starts, ends = ({(*s[cut],) if len(s) > 2 else () for s in stems} for cut in (slice(2), slice(-2, None)))
    first = ''.join(next(iter(starts))) if len(starts) == 1 else ''
    last = ''.join(next(iter(ends))) if len(ends) == 1 else ''
    return (first, last) if all(len(s) > 4 for s in stems) or not (first and last) else ('', last)
