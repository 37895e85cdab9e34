"""Draw random numbers that depend on a seed and a count only, so that a resumed training continues its random stream.

Neither the states of Python's, NumPy's and torch's generators nor those of data workers, which run ahead, are saved:
they are seeded before each sample by its position in the stream of all samples, before each iteration by its number.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Dataset, Sampler

from mmseg_volo.datasets.wrappers import SKIPPED, NamedDataset
from mmseg_volo.errors import UsageError
from mmseg_volo.io.steps import RESUMABLE_SAMPLERS

ORDER, SAMPLE, STEP = range(3)  # purpose of a seed, part of what `seed_of` hashes
MAX_REPLACEMENTS = 10  # attempts to read an item, the first included, before giving up


def seed_of(seed: int, *counts: int) -> int:
    """Hash a seed and counts into a seed of 64 bits."""
    return int(np.random.SeedSequence([seed, *counts]).generate_state(1, np.uint64)[0])


def seed_sample(seed: int) -> None:
    """Seed the generators that transforms use: Python, NumPy and torch on the CPU; data workers do not touch a GPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def seed_step(seed: int, iteration: int) -> None:
    """Seed the generators that the model uses in an iteration (dropout, drop path), differently in each process."""
    value = seed_of(seed, STEP, iteration, get_dist_info()[0])
    seed_sample(value)
    torch.manual_seed(value)


class SampleIndex(int):
    """Index a data set, with the `position` in the stream of all draws."""

    position: int

    def __new__(cls, index: int, position: int) -> SampleIndex:
        draw = super().__new__(cls, index)
        draw.position = position
        return draw

    def __reduce__(self) -> tuple[type[SampleIndex], tuple[int, int]]:
        return SampleIndex, (int(self), self.position)


@DATA_SAMPLERS.register_module(name=[*RESUMABLE_SAMPLERS])
class ResumableInfiniteSampler(Sampler[SampleIndex]):
    """Draw shuffled passes over a data set without end, starting anywhere at no cost.

    Each process takes every world-size-th draw, as with mmengine's `InfiniteSampler`.

    Args:
        dataset: data set to draw from.
        shuffle: whether each pass has an order of its own.
        seed: of the orders; drawn and shared among processes if None.
        start: draws of all processes together before this start, when a training is resumed.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None, start: int = 0):
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.start = start

    def __iter__(self) -> Iterator[SampleIndex]:
        position = self.start + self.rank
        current, order = -1, np.arange(self.size)
        while True:
            turn, offset = divmod(position, self.size)
            if self.shuffle and turn != current:
                current, order = turn, np.random.default_rng([self.seed, ORDER, turn]).permutation(self.size)
            yield SampleIndex(order[offset], position)
            position += self.world_size

    def __len__(self) -> int:
        """Return the length of one pass."""
        return self.size


class SeededDataset(NamedDataset):
    """Seed the transforms of a data set so that they draw the same numbers for the same `SampleIndex`.

    Args:
        dataset: as in `NamedDataset`.
        seed: of the draws.
        skip: whether an item that cannot be read is replaced by another one, always the same for the same draw. The
            key `skipped` of an item then holds the reasons, one per line.
    """

    def __init__(self, dataset: Dataset, seed: int, skip: bool = False):
        super().__init__(dataset)
        self.seed = seed
        self.skip = skip

    def __getitem__(self, draw: SampleIndex) -> Any:  # type: ignore[override]  # needs the position of its sampler
        """Return the item of a draw.

        Raises:
            UsageError: its files cannot be used; with `skip`, those of its replacements neither.
        """
        if not self.skip:
            return self._load_item(int(draw), seed_of(self.seed, SAMPLE, draw.position))
        reasons: list[str] = []
        for attempt in range(MAX_REPLACEMENTS):
            seed = seed_of(self.seed, SAMPLE, draw.position, *([attempt] if attempt else []))
            try:
                item = self._load_item(seed % len(self) if attempt else int(draw), seed)
                return {**item, SKIPPED: '\n'.join(reasons)}
            except UsageError as error:
                reasons.append(str(error))
        raise UsageError(f'{reasons[0]}, and {MAX_REPLACEMENTS - 1} others could not be read in its place either')

    def _load_item(self, index: int, seed: int) -> Any:
        seed_sample(seed)
        item = super().__getitem__(index)
        self.check_values(index, item)
        return item
