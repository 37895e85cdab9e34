"""Recognise images, masks and splits by the names of folders, lists and files."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

SPLITS = dict(
    train=('train', 'training', 'trn', 'tr'),
    trainval=('trainval', 'trainvalid'),  # validation is drawn from it, or has its own list
    val=('val', 'valid', 'validation', 'validate', 'vld'),
    eval=(
        'eval',
        'evaluation',
        'holdout',
        'heldout',
        'dev',
        'devel',
    ),  # validation, or test if there is a validation split
    test=('test', 'testing', 'tst', 'ts', 'te'),
)
IMAGES = ('images', 'image', 'img', 'imgs', 'photos', 'photo', 'rgb', 'sat', 'x', 'jpegimages', 'leftimg', 'leftimgbit')
MASKS: tuple[str, ...] = ('masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'ann', 'anns', 'gt')
MASKS += ('groundtruth', 'y', 'segmentation', 'segmentations', 'seg', 'targets', 'target', 'segmentationclass')
MASKS += ('gtfine', 'lbl', 'msk', 'annot', 'annots', 'anno', 'annos', 'segmap', 'segmaps', 'gts', 'segs')
MASKS += ('manual',)
FILLERS = ('dir', 'dirs', 'data', 'dataset', 'set', 'png', 'jpg', 'folder', 'files', 'semantic', 'bit', 'split', 'all')
LIST_FILLERS = ('list', 'lists', 'file', 'filelist', 'id', 'ids', 'name', 'names', 'path', 'paths', 'index', 'idx')
SHORT = 3  # letters of words that are recognised in compounds (`trainannot`), at least
JOINED = ('x', 'y', 'gt', 'tr', 'ts')  # shorter words that are recognised in compounds


@dataclass(frozen=True)
class Said:
    """The meaning of a name."""

    role: str | None = None  # 'image', 'mask'
    split: str | None = None  # a key of `SPLITS`
    rest: tuple[str, ...] = ()  # other words
    number: str = ''  # digits of a name with a split: `train2`


def split_of(word: str) -> str | None:
    """Return the key of `SPLITS` for a word that means a split."""
    return next((split for split, words in SPLITS.items() if word.lower() in words), None)


def said_by(name: str, fillers: Collection[str] = FILLERS) -> Said:
    """Return the meaning of the name of a folder, or with `FILLERS + LIST_FILLERS` of a list."""
    spaced = re.sub(r'(?<=[a-z])(?=(Tr|Ts)$)', '_', name)  # imagesTr
    spaced = re.sub(r'(?i)(hold|held|ground)[^a-z]+(?=out|truth)', r'\1', spaced)
    spaced = re.sub(r'(?i)\d+(x\d+|(st|nd|rd|th)(?![a-z]))', '_', spaced)  # 512x512, 1st
    words = [w for compound in re.split(r'[^a-z]+', spaced.lower()) if compound for w in _split(compound, (*fillers,))]
    role = 'mask' if {*words} & {*MASKS} else 'image' if {*words} & {*IMAGES} else None
    splits = [split for word in words if (split := split_of(word))]
    split = splits[0] if splits else None
    if {'train', 'val'} <= {*splits}:
        split = 'trainval'
    rest = tuple(word for word in words if not split_of(word) and word not in (*IMAGES, *MASKS, *fillers))
    return Said(role, split, rest, ''.join(re.findall(r'\d+', name)) if split else '')


def looks_like_split(name: str) -> bool:
    """Whether a name contains a word of a split or of cross-validation."""
    words = [w for compound in re.split(r'[^a-z]+', name.lower()) for w in _split(compound, FILLERS + LIST_FILLERS)]
    return any(
        word in ('fold', 'folds', 'kfold', 'split', 'splits') or len(word) > 2 and split_of(word) for word in words
    )


@cache
def _split(word: str, fillers: tuple[str, ...]) -> list[str]:
    """Split a compound of known words: `trainannot` is train and annot; return any other word as it is."""
    known = {w for words in SPLITS.values() for w in words} | {*IMAGES, *MASKS, *fillers}
    if word in known:
        return [word]
    for end in range(len(word) - 1, 0, -1):
        first, second = word[:end], word[end:]
        short = [w for w in (first, second) if len(w) < SHORT]
        if first in known and second in known and {*short} <= {*JOINED} and len(short) < 2:
            return [first, second]
    return [word]


def without_end(stem: str, words: Collection[str]) -> str | None:
    """Remove the last word of a stem if it is among `words`: `a_gt_mask` is `a_gt`, `a_mask1` is `a_1`, `mask` is ''.

    Return None for other stems. A word of one letter with a number is kept, as `y1` is a coordinate.
    """
    match = re.fullmatch(r'(?:(.*[^_.\- ])[_.\- ]+|(.*\d)(?=[A-Za-z]{2})|)([A-Za-z]+(?:\d+[A-Za-z]+)?)(\d*)', stem)
    if not match or not _is_word(match[3], words) or (len(match[3]) == 1 and match[4]):
        return None
    rest = match[1] or match[2] or ''
    return f'{rest}_{match[4]}' if rest and match[4] else rest + match[4]


def without_begin(stem: str, words: Collection[str]) -> str | None:
    """Remove the first word of a stem if it is among `words`: `mask_01` and `mask01` are `01`; None for other stems."""
    match = re.fullmatch(r'([A-Za-z]+)(?:[_.\- ]+(?=[^_.\- ])|(?=\d))(.+)', stem)
    return match[2] if match and _is_word(match[1], words) else None


def _is_word(text: str, words: Collection[str]) -> bool:
    return re.sub(r'\d', '', text.lower()) in words


def settle(splits: Collection[str | None]) -> dict[str | None, str | None]:
    """Map the keys of `SPLITS` that occur to 'train', 'val' or 'test'; `eval` is validation if there is no other, else
    test.
    """
    held_out = 'test' if 'val' in splits else 'val'
    return {split: dict(trainval='train', eval=held_out).get(split or '', split) for split in splits}
