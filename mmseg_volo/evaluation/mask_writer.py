"""Masks for a test server: `test.py --format-only`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, METRICS, DefaultScope
from mmseg.datasets import BaseSegDataset, CityscapesDataset

from mmseg_volo.datasets.loading import LABEL_STEPS
from mmseg_volo.errors import UsageError
from mmseg_volo.utils.files import encode_image, write_whole


@METRICS.register_module()
class MaskFiles(BaseMetric):
    """Writes each predicted mask to `OUTPUT_DIR/STEM_OF_THE_IMAGE.png` and scores nothing; needs no labels.

    Values are class indices, plus 1 where the data set reduces its zero label (ADE20K's server wants 1 to 150), or
    Cityscapes' label ids; 16 bits beyond 255. mmseg has this inside its metrics, but its `IoUMetric(format_only=True)`
    wraps at 256 and warns of empty results, and its `CityscapesMetric` takes class indices for train ids, which is
    wrong where a data set has some of the classes only.

    Args:
        output_dir: folder, made if need be.
        label_ids: write label ids by the class names and cityscapesscripts' table, as Cityscapes' server and scripts
            read them; they find the file of `CITY_123456_123456_leftImg8bit.png` by these first three parts.
        collect_device: 'cpu' or 'gpu', for the count over several processes.
    """

    def __init__(self, output_dir: str, label_ids: bool = False, collect_device: str = 'cpu'):
        super().__init__(collect_device=collect_device, prefix='masks')
        self.output_dir = Path(output_dir)
        self.label_ids = label_ids
        self.output_dir.mkdir(parents=True, exist_ok=True)

    def values(self) -> np.ndarray:
        """The value to write for each class index, (classes,) uint8 or uint16.

        Raises:
            UsageError: label ids are wanted and a class is none of Cityscapes'.
        """
        classes = self.dataset_meta['classes']
        if self.label_ids:
            from cityscapesscripts.helpers.labels import name2label

            if unknown := [name for name in classes if name not in name2label]:
                raise UsageError(f'label_ids is for classes of Cityscapes, which has none named {unknown[:5]}')
            return np.array([name2label[name].id for name in classes], np.uint8)
        return class_values(self.dataset_meta)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Writes the masks of a batch; mmengine calls it."""
        values = self.values()
        for sample in data_samples:
            mask = values[sample['pred_sem_seg']['data'].squeeze().cpu().numpy()]
            self.results.append(write_mask(self.output_dir, sample['img_path'], mask))

    def compute_metrics(self, results: Sequence[str]) -> dict[str, float]:
        """How many masks were written; mmengine calls it in the first process."""
        logger: MMLogger = MMLogger.get_current_instance()
        logger.info(f'{len(results)} masks are in {self.output_dir}')
        return {}


def class_values(meta: Mapping[str, Any]) -> np.ndarray:
    """The value in a mask for each class of a data set: its index, plus 1 where the data set reduces its zero label.

    Args:
        meta: metainfo of the data set.

    Returns:
        (classes,) uint8, uint16 beyond 255.
    """
    first = int(bool(meta.get('reduce_zero_label')))
    stop = first + len(meta['classes'])
    return np.arange(first, stop, dtype=np.uint8 if stop <= 256 else np.uint16)


def write_mask(folder: Path, image: str, mask: np.ndarray) -> str:
    """Writes a mask (H, W) to `FOLDER/STEM_OF_THE_IMAGE.png`, wholly or not at all.

    Returns:
        The name of the file.

    Raises:
        UsageError: it cannot be written.
    """
    path = folder / f'{Path(image).stem}.png'
    try:
        write_whole(path, encode_image('.png', mask))
    except OSError as error:
        raise UsageError(f'{path} cannot be written ({error.strerror}): make room, or name another --out') from error
    return path.name


def format_only(cfg: Config, out: str | None) -> None:
    """Turns the test of a config into one that writes masks and needs no labels; changes the config.

    Args:
        cfg: its test data set may be any of mmseg's kind; Cityscapes' masks get label ids.
        out: folder of the masks, made if need be.

    Raises:
        UsageError: no folder is given, it cannot be made, or two images have the same name.
    """
    if not out:
        raise UsageError('--format-only writes masks and nothing else: say where with --out FOLDER')
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f'--out {out} cannot be made a folder ({error.strerror}): name another place') from error
    dataset = cfg.test_dataloader.dataset
    prefix = dataset.get('data_prefix') or dict(img_path='')
    dataset.data_prefix = {key: folder for key, folder in prefix.items() if key != 'seg_map_path'}
    dataset.pipeline = without_labels(dataset.pipeline)
    if 'tta_pipeline' in cfg:
        cfg.tta_pipeline = without_labels(cfg.tta_pipeline)
    with DefaultScope.overwrite_default_scope('mmseg'):
        found = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
    _check_names(found)
    cfg.test_evaluator = dict(type='MaskFiles', output_dir=str(out), label_ids=isinstance(found, CityscapesDataset))


def without_labels(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps of a test pipeline without the one that reads labels, inside `TestTimeAug` too."""
    kept = []
    for step in pipeline:
        if step['type'] == 'TestTimeAug':
            groups = [without_labels(group) for group in step['transforms']]
            kept.append({**step, 'transforms': [group for group in groups if group]})  # an empty one would end all
        elif step['type'] not in LABEL_STEPS:
            kept.append(dict(step))
    return kept


def _check_names(dataset: BaseSegDataset) -> None:
    """Masks are named by their images alone: two of the same name would be one file."""
    if not os.path.isdir(dataset.data_prefix['img_path']):
        return  # said better by the look at all files
    first: dict[str, str] = {}
    for item in dataset.load_data_list():
        path = item['img_path']
        if (other := first.setdefault(Path(path).stem, path)) != path:
            raise UsageError(f'--format-only: {other} and {path} would be written to the same mask: rename one')
