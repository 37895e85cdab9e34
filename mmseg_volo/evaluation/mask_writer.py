"""Write masks for a test server: `test.py --format-only`."""

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
    """Write each predicted mask to `OUTPUT_DIR/STEM_OF_THE_IMAGE.png` without scoring; needs no labels.

    Values are class indices, plus 1 where the data set reduces its zero label (ADE20K's server wants 1 to 150), or
    Cityscapes' label ids; 16 bits beyond 255. mmseg has this inside its metrics, but its `IoUMetric(format_only=True)`
    wraps at 256 and warns of empty results, and its `CityscapesMetric` treats class indices as train ids, which is
    wrong if a data set has only some of the classes.

    Args:
        output_dir: folder, created if missing.
        label_ids: write label ids by class name and cityscapesscripts' table, as Cityscapes' server and scripts expect;
            they match `CITY_123456_123456_leftImg8bit.png` by its first three parts.
        collect_device: 'cpu' or 'gpu', for the count over several processes.
    """

    def __init__(self, output_dir: str, label_ids: bool = False, collect_device: str = 'cpu'):
        super().__init__(collect_device=collect_device, prefix='masks')
        self.output_dir = Path(output_dir)
        self.label_ids = label_ids
        self.output_dir.mkdir(parents=True, exist_ok=True)

    def values(self) -> np.ndarray:
        """Return the value to write for each class index, (classes,) uint8 or uint16.

        Raises:
            UsageError: `label_ids` is set and a class is not one of Cityscapes'.
        """
        classes = self.dataset_meta['classes']
        if self.label_ids:
            from cityscapesscripts.helpers.labels import name2label

            if unknown := [name for name in classes if name not in name2label]:
                raise UsageError(f'label_ids needs class names of Cityscapes, which has none named {unknown[:5]}')
            return np.array([name2label[name].id for name in classes], np.uint8)
        return class_values(self.dataset_meta)

    def process(self, data_batch: object, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Write the masks of a batch; mmengine calls it."""
        values = self.values()
        for sample in data_samples:
            mask = values[sample['pred_sem_seg']['data'].squeeze().cpu().numpy()]
            self.results.append(write_mask(self.output_dir, sample['img_path'], mask))

    def compute_metrics(self, results: Sequence[str]) -> dict[str, float]:
        """Log how many masks were written; mmengine calls it in the first process."""
        logger: MMLogger = MMLogger.get_current_instance()
        logger.info(f'{len(results)} masks are in {self.output_dir}')
        return {}


def class_values(meta: Mapping[str, Any]) -> np.ndarray:
    """Return the mask value of each class: its index, plus 1 if the data set reduces its zero label.

    Args:
        meta: metainfo of the data set.

    Returns:
        (classes,) uint8, uint16 beyond 255.
    """
    first = int(bool(meta.get('reduce_zero_label')))
    stop = first + len(meta['classes'])
    return np.arange(first, stop, dtype=np.uint8 if stop <= 256 else np.uint16)


def write_mask(folder: Path, image: str, mask: np.ndarray) -> str:
    """Write a mask (H, W) to `FOLDER/STEM_OF_THE_IMAGE.png` atomically.

    Returns:
        The file name.

    Raises:
        UsageError: it cannot be written.
    """
    path = folder / f'{Path(image).stem}.png'
    try:
        write_whole(path, encode_image('.png', mask))
    except OSError as error:
        raise UsageError(
            f'{path} cannot be written ({error.strerror}): free some space, or name another --out'
        ) from error
    return path.name


def format_only(cfg: Config, out: str | None) -> None:
    """Make the test of a config write masks without reading labels; changes the config.

    Args:
        cfg: its test data set may be any of mmseg's; Cityscapes masks get label ids.
        out: folder of the masks, created if missing.

    Raises:
        UsageError: no folder is given, it cannot be created, or two images have the same name.
    """
    if not out:
        raise UsageError('--format-only writes masks and nothing else: name their folder with --out FOLDER')
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f'--out {out} cannot be created ({error.strerror}): name another folder') from error
    dataset = cfg.test_dataloader.dataset
    prefix = dataset.get('data_prefix') or dict(img_path='')
    dataset.data_prefix = {key: folder for key, folder in prefix.items() if key != 'seg_map_path'}
    dataset.pipeline = without_labels(dataset.pipeline)
    if 'tta_pipeline' in cfg:
        cfg.tta_pipeline = without_labels(cfg.tta_pipeline)
    with DefaultScope.overwrite_default_scope('mmseg'):
        built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
    _check_names(built)
    cfg.test_evaluator = dict(type='MaskFiles', output_dir=str(out), label_ids=isinstance(built, CityscapesDataset))


def without_labels(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a test pipeline without the steps that read labels, inside `TestTimeAug` too."""
    kept: list[dict[str, Any]] = []
    for step in pipeline:
        if step['type'] == 'TestTimeAug':
            groups = [without_labels(group) for group in step['transforms']]
            kept.append({**step, 'transforms': [group for group in groups if group]})  # mmcv fails on an empty one
        elif step['type'] not in LABEL_STEPS:
            kept.append(dict(step))
    return kept


def _check_names(dataset: BaseSegDataset) -> None:
    """Refuse two images of the same name: masks are named by image alone, so they would share a file."""
    if not os.path.isdir(dataset.data_prefix['img_path']):
        return  # the check of the data reports it better
    first: dict[str, str] = {}
    for item in dataset.load_data_list():
        path = item['img_path']
        if (other := first.setdefault(Path(path).stem, path)) != path:
            raise UsageError(f'--format-only: {other} and {path} would be written to the same mask: rename one')
