"""Which mask belongs to which image, by their names.

Names that agree exactly come first, and what they pair stays so. What is left over is tried by ever wider guesses:
another split or case of letters, words of a mask or an image at the end or the beginning (`a.jpg` with `a_mask.png`),
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
Key = Callable[['File'], Hashable | None]  # None: the file takes no part


@dataclass(frozen=True)
class Pair:
    """An image, its mask and what it is for."""

    image: Path
    mask: Path | None  # of test images only, there may be none
    split: str | None = None  # 'train', 'val', 'test'; None where nothing says it


@dataclass(frozen=True)
class File:
    """An image or a mask, and what its folders say."""

    path: Path
    role: str  # 'image', 'mask'
    split: str | None
    folder: tuple[str, ...] = ()  # parts of its folder that say neither split nor role
    number: str = ''  # of the folder of its split

    @cached_property
    def place(self) -> tuple[str, ...]:
        """Its folder as file systems that ignore case see it."""
        return tuple(map(plain, self.folder))

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """Its stem, and that without one word at its end, two, ...; each as `plain`."""
        stems: list[str] = [self.path.stem]
        words = MASK_ENDS if self.role == 'mask' else IMAGES
        while stems[-1] and (shorter := without_end(stems[-1], words)) is not None:
            stems.append(shorter)
        return tuple(map(plain, stems))


@dataclass(frozen=True)
class Matched:
    """What was paired, and what was not."""

    pairs: list[tuple[File, File]]  # image, mask
    images: list[File]
    masks: list[File]
    guess: str = ''  # how names were read that do not agree by words that are known


def match(images: Sequence[File], masks: Sequence[File]) -> Matched:
    """Pairs images and masks, each with one at most.

    Raises:
        UsageError: several files fit the same partner; names them.
    """
    pairs, left = _rounds(_sure(), dict(image=[*images], mask=[*masks]))
    guess = ''
    if not pairs and (said := several_per_image(*([(f.folder, f.path) for f in files] for files in (images, masks)))):
        raise UsageError(said)
    if not pairs:  # one data set has one way of naming: nothing so wide is tried for the few that are left over
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
    """What an image and its mask share, from the surest on."""
    yield lambda f: (f.number, f.folder, f.path.stem)
    yield lambda f: (f.folder, f.path.stem)
    yield lambda f: (f.place, f.stems[0])
    yield lambda f: (f.place, plain(f.path.name) if f.role == 'image' else f.stems[0])  # a.jpg, a.jpg.png
    yield from _bare(lambda f: f.place)


def _wide(images: Sequence[File]) -> Iterator[Key]:
    """What an image and its mask may share where nothing surer pairs any."""
    for place in (lambda f: f.place, lambda f: ()):
        yield from _bare(place)
        if all(CHANNEL.search(image.stems[0]) for image in images):
            yield _without_channel(place)


def _bare(place: Key) -> Iterator[Key]:
    """Stems without words at their ends, the fewest first; then without all at both ends."""
    for total in range(2 * STRIPPED + 1):
        for of_image in range(min(total, STRIPPED) + 1):
            if total - of_image <= STRIPPED:
                yield _stripped(place, dict(image=of_image, mask=total - of_image))
    yield _without_words(place)


def _stripped(place: Key, words: dict[str, int]) -> Key:
    """By stems without so many words at their ends."""

    def key(file: File) -> Hashable | None:
        count = words[file.role]
        return (place(file), file.stems[count]) if count < len(file.stems) else None

    return key


def _without_words(place: Key) -> Key:
    """By stems without all words at their ends and beginnings: `img_01` with `mask_01`, `image` with `mask`."""

    def key(file: File) -> Hashable | None:
        stem, words = file.stems[-1], MASK_ENDS if file.role == 'mask' else IMAGES
        while (shorter := without_begin(stem, words)) is not None:
            stem = shorter
        at = place(file)
        return (at, stem) if stem or at else None

    return key


def _without_channel(place: Key) -> Key:
    """By the stems of masks, and of images without the number of their channel (nnU-Net's `_0000`)."""
    return lambda f: (place(f), CHANNEL.sub('', f.stems[0]) if f.role == 'image' else f.stems[0])


def _same_split(key: Key, left: dict[str, list[File]]) -> Key:
    return lambda f: None if (k := key(f)) is None else (f.split, k)


def _any_split(key: Key, left: dict[str, list[File]]) -> Key:
    """Where only one of the two lies in folders of splits, the other has all in one."""
    whole = [role for role, files in left.items() if all(file.split is None for file in files)]
    return key if whole else lambda f: None


def plain(text: str) -> str:
    """Text as file systems that ignore case and ways of writing accents see it."""
    return unicodedata.normalize('NFC', text).casefold()


def _agree(images: Sequence[File], masks: Sequence[File], key: Key) -> list[tuple[File, File]]:
    tables: list[dict[Hashable, list[File]]] = []
    for files in (images, masks):
        table: dict[Hashable, list[File]] = {}
        for file in files:
            if (k := key(file)) is not None:
                table.setdefault(k, []).append(file)
        tables.append(table)
    one, two = tables
    pairs = []
    for k in (k for k in one if k in two):
        for same in (one[k], two[k]):
            if len(same) > 1:
                raise UsageError(_several(one[k], two[k], same))
        pairs.append((one[k][0], two[k][0]))
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
        f'{first.path} and {second.path} are one {first.role} by their name: rename or remove one, or say with '
        f'--images FOLDER --masks FOLDER which are meant; both fit {partner.path}'
    )


def _alone_in_folders(images: Sequence[File], masks: Sequence[File]) -> list[tuple[File, File]]:
    """By the folder, where each holds one image and one mask at most."""
    one, two = ({(file.split, file.place): file for file in files if file.place} for files in (images, masks))
    if len(one) < len(images) or len(two) < len(masks):
        return []
    return [(one[k], two[k]) for k in one if k in two]


def _by_common_parts(images: Sequence[File], masks: Sequence[File]) -> tuple[list[tuple[File, File]], str]:
    """By what is left of names without the first or last part that all images, or all masks, have in common.

    Only if that pairs all masks: `21_training.tif` with `21_manual1.gif`.
    """
    cuts = dict(image=_common(images), mask=_common(masks))
    if len(images) < 2 or not any(map(any, cuts.values())):
        return [], ''

    def key(file: File, deep: bool) -> Hashable:
        begin, end = cuts[file.role]
        stem = file.path.stem.removeprefix(begin).removesuffix(end)
        while end and (shorter := without_end(stem, MASK_ENDS if file.role == 'mask' else IMAGES)):
            stem = shorter
        return file.split, file.place * deep, plain(stem)

    for deep in (True, False):
        one, two = ({key(file, deep): file for file in files} for files in (images, masks))
        if len(one) == len(images) and len(two) == len(masks) and two.keys() <= one.keys():
            said = ' with '.join(f'{begin}*{end}' for begin, end in cuts.values())
            return [(one[k], two[k]) for k in two], f'names are read as {said}: rename files if that is wrong'
    return [], ''


def _common(files: Sequence[File]) -> tuple[str, str]:
    """The parts that all stems begin and end with, up to a mark between."""
    parts = [re.split(r'([_.\- ]+)', file.path.stem) for file in files]
    begin, end = {(*p[:2],) if len(p) > 2 else () for p in parts}, {(*p[-2:],) if len(p) > 2 else () for p in parts}
    first = ''.join(next(iter(begin))) if len(begin) == 1 else ''
    last = ''.join(next(iter(end))) if len(end) == 1 else ''
    return (first, last) if all(len(p) > 4 for p in parts) or not (first and last) else ('', last)
