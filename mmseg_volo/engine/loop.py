"""Run a training loop that resumes bit for bit after a stop or a crash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.dist import get_world_size
from mmengine.registry import DATASETS, LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmseg_volo.datasets.sampler import ResumableInfiniteSampler, SeededDataset, seed_step
from mmseg_volo.datasets.wrappers import SKIPPED, log_skipped
from mmseg_volo.errors import UsageError
from mmseg_volo.io.steps import RESUMABLE_SAMPLERS

SAMPLES_DRAWN = 'draws'  # meta[SAMPLES_DRAWN]: samples drawn by all processes together
VALIDATED = 'scored'  # message_hub: the last iteration that was validated


def seeded(
    dataloader: DataLoader[Any] | Mapping[str, Any], runner: Runner, start: int, skip: bool = False
) -> DataLoader[Any]:
    """Build a data loader that seeds every sample by its position in the training.

    Args:
        dataloader: config with a `ResumableInfiniteSampler`, or a built loader.
        runner: provides the seed.
        start: samples drawn so far.
        skip: see `SeededDataset`.

    Raises:
        UsageError: the config has another sampler.
    """
    if isinstance(dataloader, DataLoader):
        return dataloader
    sampler = dataloader['sampler']
    if sampler['type'] not in (*RESUMABLE_SAMPLERS, ResumableInfiniteSampler):
        raise UsageError(
            f'train_dataloader.sampler is {sampler["type"]}: SegTrainLoop needs '
            f'ResumableInfiniteSampler, which can resume at any sample '
            f'(or use train_cfg.type=IterBasedTrainLoop, whose resumed trainings draw other samples)'
        )
    dataset = DATASETS.build(dataloader['dataset'])
    dataset.full_init()
    cfg = {**dataloader, 'dataset': SeededDataset(dataset, runner.seed, skip), 'sampler': {**sampler, 'start': start}}
    loader: DataLoader[Any] = runner.build_dataloader(cfg, seed=runner.seed)
    return loader


class Later:
    """A data loader whose workers start at its first batch, when the hooks listen to signals. mmengine's loop asks for
    an iterator when it is built; OpenMMLab's mmengine starts one then, which also draws a random number."""

    def __init__(self, loader: DataLoader[Any]):
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


@LOOPS.register_module()
class SegTrainLoop(IterBasedTrainLoop):
    """Train by iterations, resumable bit for bit: the same samples, augmentations and dropout, without drawing earlier
    samples again; a validation that was due when the training stopped is run on resume.

    Args:
        runner, dataloader, max_iters, val_begin, val_interval, dynamic_intervals: as in mmengine's loop; the sampler
            of `dataloader` is a `ResumableInfiniteSampler`.
        on_bad_item: action on an item that cannot be read or whose label holds values that are not a class: 'stop' ends
            the training, 'skip' replaces the item by another one, with a warning.
        max_bad_share: share of the items that may be skipped; a single one always may.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader[Any] | Mapping[str, Any],
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
        on_bad_item: str = 'stop',
        max_bad_share: float = 0.01,
    ):
        if on_bad_item not in ('stop', 'skip') or not 0 <= max_bad_share < 1:
            raise UsageError(
                f"train_cfg: on_bad_item must be 'stop' or 'skip' and max_bad_share in [0, 1), got "
                f'{on_bad_item!r} and {max_bad_share!r}'
            )
        self.skip = on_bad_item == 'skip'
        self.max_bad_share = max_bad_share
        self.draws = getattr(runner, 'draws', 0)
        loader = seeded(dataloader, runner, self.draws, self.skip)
        super().__init__(runner, Later(loader), max_iters, val_begin, val_interval, dynamic_intervals)
        self.dataloader = loader

    def run(self) -> nn.Module:
        """Train; unlike mmengine's `run`, does not read the samples before a resume again."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        if self._iter and self.runner.message_hub.runtime_info.get(VALIDATED) != self._iter:
            self._validate_if_due()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate_if_due()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        model: nn.Module = self.runner.model
        return model

    def run_iter(self, data_batch: dict[str, Any]) -> None:
        """Train on one batch, with the random numbers of this iteration."""
        if self.skip:
            log_skipped(self.runner, data_batch.pop(SKIPPED, []), self.max_bad_share)
        seed_step(self.runner.seed, self._iter)
        self.draws += self.dataloader.batch_size * get_world_size()
        super().run_iter(data_batch)

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if due and self._iter >= self.val_begin and self.runner.val_loop is not None:
            self.runner.val_loop.run()
