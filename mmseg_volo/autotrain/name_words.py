"""What the names of folders, lists and files say: images or masks, and which split."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

SPLITS = dict(
    train=('train', 'training', 'trn', 'tr'),
    trainval=('trainval', 'trainvalid'),  # validation is drawn from it, or is a list of its own
    val=('val', 'valid', 'validation', 'validate', 'vld'),
    eval=('eval', 'evaluation', 'holdout', 'heldout', 'dev', 'devel'),  # validation, or test where that is there
    test=('test', 'testing', 'tst', 'ts', 'te'),
)
IMAGES = ('images', 'image', 'img', 'imgs', 'photos', 'photo', 'rgb', 'sat', 'x', 'jpegimages', 'leftimg', 'leftimgbit')
MASKS = ('masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'ann', 'anns', 'gt', 'groundtruth', 'y')
MASKS += ('segmentation', 'segmentations', 'seg', 'targets', 'target', 'segmentationclass', 'gtfine', 'lbl', 'msk')
MASKS += ('annot', 'annots', 'anno', 'annos', 'segmap', 'segmaps', 'gts', 'segs', 'manual')
FILLERS = ('dir', 'dirs', 'data', 'dataset', 'set', 'png', 'jpg', 'folder', 'files', 'semantic', 'bit', 'split', 'all')
LIST_FILLERS = ('list', 'lists', 'file', 'filelist', 'id', 'ids', 'name', 'names', 'path', 'paths', 'index', 'idx')
SHORT = 3  # letters of words that are found inside others (`trainannot`), at least
JOINED = ('x', 'y', 'gt', 'tr', 'ts')  # shorter ones, beside a word of a split or of a role


@dataclass(frozen=True)
class Said:
    """What a name says."""

    role: str | None = None  # 'image', 'mask'
    split: str | None = None  # a key of `SPLITS`
    rest: tuple[str, ...] = ()  # words that say neither
    number: str = ''  # digits, where there is a split: `train2`


def split_of(word: str) -> str | None:
    """The key of `SPLITS` for a word that means a split."""
    return next((split for split, words in SPLITS.items() if word.lower() in words), None)


def said_by(name: str, fillers: Collection[str] = FILLERS) -> Said:
    """What the name of a folder says; of a list with `FILLERS + LIST_FILLERS`."""
    spaced = re.sub(r'(?<=[a-z])(?=(Tr|Ts)$)', '_', name)  # imagesTr
    spaced = re.sub(r'(?i)(hold|held|ground)[^a-z]+(?=out|truth)', r'\1', spaced)
    spaced = re.sub(r'(?i)\d+(x\d+|(st|nd|rd|th)(?![a-z]))', '_', spaced)  # 512x512, 1st
    words = [part for word in re.split(r'[^a-z]+', spaced.lower()) if word for part in _parts(word, (*fillers,))]
    roles = ['mask'] if {*words} & {*MASKS} else ['image'] if {*words} & {*IMAGES} else [None]
    splits = [split for word in words if (split := split_of(word))]
    split = splits[0] if splits else None
    if {'train', 'val'} <= {*splits}:
        split = 'trainval'
    rest = tuple(word for word in words if not split_of(word) and word not in (*IMAGES, *MASKS, *fillers))
    return Said(roles[0], split, rest, ''.join(re.findall(r'\d+', name)) if split else '')


def looks_like_split(name: str) -> bool:
    """Whether a word of a split or of cross-validation stands in a name."""
    words = [part for word in re.split(r'[^a-z]+', name.lower()) for part in _parts(word, FILLERS + LIST_FILLERS)]
    return any(
        word in ('fold', 'folds', 'kfold', 'split', 'splits') or len(word) > 2 and split_of(word) for word in words
    )


@cache
def _parts(word: str, fillers: tuple[str, ...]) -> list[str]:
    """Known words that a word is joined of: `trainannot` is train and annot; itself if it is not."""
    known = {w for words in SPLITS.values() for w in words} | {*IMAGES, *MASKS, *fillers}
    if word in known:
        return [word]
    for end in range(len(word) - 1, 0, -1):
        first, second = word[:end], word[end:]
        short = [part for part in (first, second) if len(part) < SHORT]
        if first in known and second in known and {*short} <= {*JOINED} and len(short) < 2:
            return [first, second]
    return [word]


def without_end(stem: str, words: Collection[str]) -> str | None:
    """A stem without its last part, if that is such a word: `a_gt_mask` is `a_gt`, `a_mask1` is `a_1`; '' if the whole
    stem is one; None if there is nothing to take off. A word of one letter has no number, as `y1` is a place.
    """
    match = re.fullmatch(r'(?:(.*[^_.\- ])[_.\- ]+|(.*\d)(?=[A-Za-z]{2})|)([A-Za-z]+(?:\d+[A-Za-z]+)?)(\d*)', stem)
    if not match or not _is_word(match[3], words) or (len(match[3]) == 1 and match[4]):
        return None
    rest = match[1] or match[2] or ''
    return f'{rest}_{match[4]}' if rest and match[4] else rest + match[4]


def without_begin(stem: str, words: Collection[str]) -> str | None:
    """A stem without its first part, if that is such a word: `mask_01` and `mask01` are `01`; None if it is not."""
    match = re.fullmatch(r'([A-Za-z]+)(?:[_.\- ]+(?=[^_.\- ])|(?=\d))(.+)', stem)
    return match[2] if match and _is_word(match[1], words) else None


def _is_word(text: str, words: Collection[str]) -> bool:
    return re.sub(r'\d', '', text.lower()) in words


def settle(splits: Collection[str | None]) -> dict[str | None, str | None]:
    """'train', 'val' or 'test' for each key of `SPLITS` among what was found; what is held out is validation if there
    is no other, else test."""
    held_out = 'test' if 'val' in splits else 'val'
    return {split: dict(trainval='train', eval=held_out).get(split or '', split) for split in splits}
