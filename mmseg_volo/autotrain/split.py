"""Split a folder: as its data say, or by a seed, with no near duplicates across training and validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmseg_volo.autotrain.discover import DiscoveredPairs, Pair
from mmseg_volo.autotrain.image_stats import ImageStats
from mmseg_volo.autotrain.label_map import Labels
from mmseg_volo.autotrain.near_duplicates import alike_groups
from mmseg_volo.errors import UsageError

SPLITS = ('train', 'val', 'test')
SHUFFLES = 200  # of which the best is used


def split_pairs(
    layout: DiscoveredPairs, facts: Mapping[Path, ImageStats], labels: Labels, share: float | None, seed: int
) -> tuple[dict[str, list[Pair]], str, list[str]]:
    """Return the pairs of each split, how they were split, and notes.

    Args:
        layout: the pairs, with the splits that the data give.
        facts: statistics of each image, by its path.
        labels: the meaning of mask values.
        share: of validation, see `choose`, if the data give no validation images.
        seed: of this choice.

    Raises:
        UsageError: there are no training images, or too few to split; or a share is given, but the data have a split.
    """
    given = {name: [pair for pair in layout.pairs if pair.split == name] for name in SPLITS}
    rest = [pair for pair in layout.pairs if pair.split is None]
    source = given['train'] + rest
    if given['val']:
        if not source:
            raise UsageError(f'{layout.root}: there are validation images but no training images')
        if share is not None:
            raise UsageError(f'--val-share is for data without a split, and {layout.root} has one: leave it out')
        given['train'] = source
        return {k: v for k, v in given.items() if v}, 'as the data say', []
    stats = [facts[pair.image] for pair in source]
    chosen, notes = choose(stats, [labels.pixels(fact) for fact in stats], len(labels.classes), share, seed)
    picked = {*chosen}
    splits = dict(
        train=[pair for i, pair in enumerate(source) if i not in picked],
        val=[pair for i, pair in enumerate(source) if i in picked],
        test=given['test'],
    )
    return {k: v for k, v in splits.items() if v}, f'validation by seed {seed}', notes


def groups_of(facts: Sequence[ImageStats]) -> NDArray[np.int64]:
    """Number the groups of near duplicates: (n,) integers, one for each image."""
    return alike_groups([fact.thumb for fact in facts])


def choose(
    facts: Sequence[ImageStats], pixels: Sequence[Mapping[int, int]], classes: int, share: float | None, seed: int
) -> tuple[list[int], list[str]]:
    """Choose the validation images.

    Args:
        facts: statistics of the images to split.
        pixels: of each image's mask, index of a class -> pixels.
        classes: number of classes.
        share: of validation; if None, a fifth of up to 1000 images, a tenth of more.
        seed: of the shuffles. The best has training and validation images of each class, if any shuffle has, and the
            most even shares of the classes.

    Returns:
        Their indices in `facts`, ascending, and notes.

    Raises:
        UsageError: there are fewer than two images, or the share is not between 0 and 1.
    """
    n = len(facts)
    if n < 2:
        raise UsageError(f'{n} image with a mask cannot be split into training and validation: at least 2 are needed')
    share = (0.2 if n <= 1000 else 0.1) if share is None else share
    if not 0 < share < 1:
        raise UsageError(f'--val-share must lie between 0 and 1, got {share:g}')
    wanted = min(max(1, round(share * n)), n - 1)
    group, notes = groups_of(facts), []
    sizes = np.bincount(np.unique(group, return_inverse=True)[1])
    alike = int(sizes[sizes > 1].sum())
    if sizes.max() > n - max(1, wanted // 2):
        notes.append(
            f'{sizes.max()} of {n} images are near duplicates and are split all the same: the score will be too high'
        )
        group = np.arange(n)
    elif alike:
        notes.append(f'{alike} images have near duplicates, which stay on one side of the split')
    holds = np.zeros((n, classes))
    for i, by_class in enumerate(pixels):
        for index, count in by_class.items():
            if index < classes:
                holds[i, index] = count
    return _best(group, holds, wanted, seed), notes


def _best(group: NDArray[np.int64], holds: NDArray[np.float64], wanted: int, seed: int) -> list[int]:
    _, group = np.unique(group, return_inverse=True)
    count = np.bincount(group)
    # by group: number of images with each class, and share of the pixels of each class
    images = np.zeros((len(count), holds.shape[1]))
    np.add.at(images, group, holds > 0)
    area = np.zeros_like(images)
    np.add.at(area, group, holds / np.maximum(holds.sum(0), 1))
    total, goal = images.sum(0), wanted / len(group)
    rng = np.random.default_rng(seed)
    best: tuple[float, NDArray[np.int64]] | None = None
    for _ in range(SHUFFLES):
        order = rng.permutation(len(count))
        filled = np.cumsum(count[order])
        inside = order[: max(1, int(np.searchsorted(filled, wanted, side='right')))]
        if len(inside) == len(count):
            inside = inside[:-1]
        here = images[inside].sum(0)
        present = total > 0
        lost = 10 * (here[present] == total[present]).sum() + (here[present] == 0).sum()
        uneven = np.abs(area[inside].sum(0)[present] - goal).mean() if present.any() else 0
        missing = abs(count[inside].sum() - wanted) / wanted
        score = float(lost + uneven + missing)
        if best is None or score < best[0]:
            best = score, inside
    chosen = np.isin(group, best[1]) if best else np.zeros(len(group), bool)
    return np.flatnonzero(chosen).tolist()
