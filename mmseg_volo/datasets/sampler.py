"""Random numbers that depend on a seed and a count only, so that a resumed training draws what it would have drawn.

Nothing is recorded of the states of Python's, NumPy's and torch's generators, nor of data workers, which run ahead:
before each sample they are seeded by its place in the stream of all samples, before each iteration by its number.
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

ORDER, SAMPLE, STEP = range(3)  # what a seed is for
MAX_REPLACEMENTS = 10  # items that are tried in the place of one that cannot be read


def seed_of(seed: int, *counts: int) -> int:
    """64 bits that differ with every argument."""
    return int(np.random.SeedSequence([seed, *counts]).generate_state(1, np.uint64)[0])


def seed_sample(seed: int) -> None:
    """Seeds what transforms draw from: Python, NumPy and torch on the CPU; no GPU is asked in a data worker."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def seed_step(seed: int, iteration: int) -> None:
    """Seeds what the model draws from in an iteration (dropout, drop path), differently in each process."""
    value = seed_of(seed, STEP, iteration, get_dist_info()[0])
    seed_sample(value)
    torch.manual_seed(value)


class SampleIndex(int):
    """An index into a data set that knows its `place` in the stream of all draws."""

    place: int

    def __new__(cls, index: int, place: int) -> SampleIndex:
        draw = super().__new__(cls, index)
        draw.place = place
        return draw

    def __reduce__(self) -> tuple:
        return SampleIndex, (int(self), self.place)


@DATA_SAMPLERS.register_module(name=['ResumableInfiniteSampler', 'DrawSampler'])
class ResumableInfiniteSampler(Sampler):
    """Shuffled passes over a data set without end; each process takes every world-size-th draw, as mmengine's
    `InfiniteSampler` does. It can begin anywhere, at no cost.

    Args:
        dataset: what to draw from.
        shuffle: whether each pass has an order of its own.
        seed: of the orders; drawn and shared among processes if None.
        start: draws of all processes together that were made before, in the training that goes on.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None, start: int = 0):
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.start = start

    def __iter__(self) -> Iterator[SampleIndex]:
        place = self.start + self.rank
        current, order = -1, range(self.size)
        while True:
            turn, position = divmod(place, self.size)
            if self.shuffle and turn != current:
                current, order = turn, np.random.default_rng([self.seed, ORDER, turn]).permutation(self.size)
            yield SampleIndex(order[position], place)
            place += self.world_size

    def __len__(self) -> int:
        """Of one pass."""
        return self.size


class SeededDataset(NamedDataset):
    """A data set whose transforms draw the same numbers whenever they are asked for the same `SampleIndex`.

    Args:
        dataset: as in `NamedDataset`.
        seed: of the draws.
        skip: whether an item that cannot be read is replaced by another one, the same whenever it is asked for. Items
            then say under the key `skipped` what was wrong, a sentence per line.
    """

    def __init__(self, dataset: Dataset, seed: int, skip: bool = False):
        super().__init__(dataset)
        self.seed = seed
        self.skip = skip

    def __getitem__(self, draw: SampleIndex) -> Any:
        """The item of a draw.

        Raises:
            UsageError: its files cannot be used; with `skip` those of `MAX_REPLACEMENTS` others neither.
        """
        if not self.skip:
            return self._item(int(draw), seed_of(self.seed, SAMPLE, draw.place))
        wrong: list[str] = []
        for attempt in range(MAX_REPLACEMENTS):
            seed = seed_of(self.seed, SAMPLE, draw.place, *([attempt] if attempt else []))
            try:
                item = self._item(seed % len(self) if attempt else int(draw), seed)
                return {**item, SKIPPED: '\n'.join(wrong)}
            except UsageError as error:
                wrong.append(str(error))
        raise UsageError(f'{wrong[0]}, and {MAX_REPLACEMENTS - 1} others could not be read in its place either')

    def _item(self, index: int, seed: int) -> Any:
        seed_sample(seed)
        item = super().__getitem__(index)
        self.check_values(index, item)
        return item
