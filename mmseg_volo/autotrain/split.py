"""The splits of a folder: its own, or a validation split by a seed, in which no image has its equal or its near
duplicate among the training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmseg_volo.autotrain.discover import DiscoveredPairs, Pair
from mmseg_volo.autotrain.image_stats import ImageStats
from mmseg_volo.autotrain.label_map import Labels
from mmseg_volo.autotrain.near_duplicates import alike_groups
from mmseg_volo.errors import UsageError

SPLITS = ('train', 'val', 'test')
SHUFFLES = 200  # shuffles, of which the best is taken


def split_pairs(
    layout: DiscoveredPairs, facts: Mapping[Path, ImageStats], labels: Labels, share: float | None, seed: int
) -> tuple[dict[str, list[Pair]], str, list[str]]:
    """The pairs of each split, how they were split, and notes.

    Args:
        layout: the pairs, and what the data say of their splits.
        facts: of each image, by its path.
        labels: what masks mean.
        share: of validation, see `choose`, where the data do not say which images are for it.
        seed: of this choice.

    Raises:
        UsageError: there are no training images, or too few to be split; or a share, and the data have a split.
    """
    found = {name: [pair for pair in layout.pairs if pair.split == name] for name in SPLITS}
    rest = [pair for pair in layout.pairs if pair.split is None]
    source = found['train'] + rest
    if found['val']:
        if not source:
            raise UsageError(f'{layout.root}: there are validation images and no training images')
        if share is not None:
            raise UsageError(f'--val-share is for data without a split, and {layout.root} has one: leave it out')
        found['train'] = source
        return {k: v for k, v in found.items() if v}, 'as the data say', []
    seen = [facts[pair.image] for pair in source]
    chosen, notes = choose(seen, [labels.pixels(fact) for fact in seen], len(labels.classes), share, seed)
    picked = {*chosen}
    splits = dict(
        train=[pair for i, pair in enumerate(source) if i not in picked],
        val=[pair for i, pair in enumerate(source) if i in picked],
        test=found['test'],
    )
    return {k: v for k, v in splits.items() if v}, f'validation by seed {seed}', notes


def groups_of(facts: Sequence[ImageStats]) -> np.ndarray:
    """A number for each image, the same for near duplicates: (n,) integers."""
    return alike_groups([fact.thumb for fact in facts])


def choose(
    facts: Sequence[ImageStats], pixels: Sequence[Mapping[int, int]], classes: int, share: float | None, seed: int
) -> tuple[list[int], list[str]]:
    """Which images are for validation.

    Args:
        facts: of the images that are to be split.
        pixels: of each image's mask, index of a class -> pixels.
        classes: how many there are.
        share: of validation; a fifth of up to 1000 images, else a tenth, if None.
        seed: of the shuffles. Among some, that is taken which leaves no class without training or validation images if
            any can, and whose classes have the most even shares.

    Returns:
        Their places in `facts`, ascending, and what is worth saying.

    Raises:
        UsageError: there are fewer than two images, or the share is none.
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
        notes.append(f'{sizes.max()} of {n} images are near duplicates: they are split all the same, so that the score')
        notes[-1] += ' says little'
        group = np.arange(n)
    elif alike:
        notes.append(f'{alike} images have near duplicates, which stay on one side of the split')
    holds = np.zeros((n, classes))
    for i, found in enumerate(pixels):
        for index, count in found.items():
            if index < classes:
                holds[i, index] = count
    return _best(group, holds, wanted, seed), notes


def _best(group: np.ndarray, holds: np.ndarray, wanted: int, seed: int) -> list[int]:
    _, group = np.unique(group, return_inverse=True)
    count = np.bincount(group)
    # of each group: images with each class, and its pixels as a share of the class
    images = np.zeros((len(count), holds.shape[1]))
    np.add.at(images, group, holds > 0)
    area = np.zeros_like(images)
    np.add.at(area, group, holds / np.maximum(holds.sum(0), 1))
    total, goal = images.sum(0), wanted / len(group)
    rng = np.random.default_rng(seed)
    best: tuple[float, np.ndarray] | None = None
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
