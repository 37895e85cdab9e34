"""Name the file of an item that cannot be read, or skip such items up to a share of the data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

from mmseg_volo.datasets.check.config import reader_of
from mmseg_volo.datasets.check.files import PairCheck, check_pair
from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.utils.text import format_ranges

SKIPPED = 'skipped'  # key of a batch, and of message_hub: why items were skipped


class NamedDataset(Dataset):
    """Wrap a data set so that its errors name the file at fault.

    Args:
        dataset: mmseg's, or one that wraps such sets.
    """

    def __init__(self, dataset: Dataset):
        self.dataset: Any = dataset  # mmseg's own methods are used where it has them
        self.classes: tuple[str, ...] = tuple(getattr(dataset, 'metainfo', {}).get('classes') or ())

    def __getitem__(self, index: int) -> Any:
        """Return an item.

        Raises:
            UsageError: its image or its label cannot be used. Errors with another cause are raised unchanged.
        """
        try:
            return self.dataset[index]
        except Exception:
            self.raise_for_files(index)
            raise

    def raise_for_files(self, index: int) -> None:
        """Check the image and the label of an item.

        Raises:
            UsageError: one cannot be used.
        """
        item = self.dataset.get_data_info(index) if hasattr(self.dataset, 'get_data_info') else {}
        if not item.get('img_path'):
            return
        label, names = item.get('seg_map_path'), {value: str(value) for value in range(256)}
        check: PairCheck = check_pair
        if self.classes:
            names, check = reader_of(self.dataset, item, self.classes)
        try:
            check(Path(item['img_path']), None if label is None else Path(label), names)
        except BadFileError as error:  # of one argument, so that torch can hand it over from a data worker
            raise UsageError(f'{error}: repair or remove it') from error

    def check_values(self, index: int, item: Any) -> None:
        """Refuse label values that are no class: they would end a training in an error that names no file, or on a GPU
        in none at all.

        Raises:
            UsageError: the item's label has some.
        """
        sample = item.get('data_samples') if isinstance(item, dict) else None
        if not self.classes or not isinstance(sample, SegDataSample) or 'gt_sem_seg' not in sample:
            return
        label, ignore_index = sample.gt_sem_seg.data, getattr(self.dataset, 'ignore_index', 255)
        low, high = label.aminmax()
        small = label.byte() if low >= 0 and high < 256 else label  # several times as fast
        wrong = ((small >= len(self.classes)) | (small < 0)) & (small != ignore_index)
        if wrong.any():
            self.raise_for_files(index)
            shown = format_ranges(label[wrong].unique().tolist())
            raise UsageError(
                f'item {index} ({sample.get("seg_map_path")}) holds {shown} after the pipeline, expected 0 to '
                f'{len(self.classes) - 1} and {ignore_index}: see its transforms'
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        """Forward `metainfo`, `data_prefix` and the like to the data set."""
        if name == 'dataset':  # asked for by pickle before there is one
            raise AttributeError(name)
        return getattr(self.dataset, name)


def log_skipped(runner: Runner, reasons: Sequence[str], share: float) -> None:
    """Count the items that the data workers of all processes have skipped, and warn of each once.

    Args:
        runner: in training; it keeps the list, also in its checkpoints.
        reasons: why items of this process's batch were skipped, one reason per line.
        share: largest share of the data set's items that may be skipped; one may in any case.

    Raises:
        UsageError: more are skipped; raised in every process.
    """
    new = [line for text in reasons for line in text.splitlines()]
    count = torch.tensor(len(new))
    all_reduce(count)
    if not count:
        return
    known = runner.message_hub.runtime_info.get(SKIPPED, [])
    added = sorted({line for lines in all_gather_object(new) for line in lines} - set(known))
    limit = max(1, int(share * len(runner.train_dataloader.dataset)))
    for number, line in enumerate(added, len(known) + 1):
        runner.logger.warning(f'skipped, {number} of at most {limit}: {line}')
    runner.message_hub.update_info(SKIPPED, [*known, *added])
    if len(known) + len(added) > limit:
        raise UsageError(
            f'{len(known) + len(added)} items had to be skipped, more than {limit} (max_bad_share={share:g}), '
            f'the last one because {added[-1]}'
        )
