"""Run the first item of each data set through its pipeline before a training, and check that the model takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_volo.datasets.wrappers import NamedDataset
from mmseg_volo.engine.config_checks import datasets_of, refuse_sizes
from mmseg_volo.errors import UsageError
from mmseg_volo.io.multiband import is_plain

AS_COLOURS = ('LoadImageFromFile', 'LoadRandomCrop', 'LoadRGBImage')  # steps that convert an image to 8-bit RGB
MAX_ITEMS_TRIED = 10  # if unreadable items are skipped


def try_first_items(cfg: Config, roles: Sequence[str]) -> None:
    """Run an item of each data set through its pipeline; check crop sizes, too.

    Args:
        cfg: of a training.
        roles: keys of the data loaders.

    Raises:
        FileNotFoundError, UsageError: a pipeline fails, or its output does not fit the model.
    """
    refuse_sizes(cfg)
    skip = (cfg.get('train_cfg') or {}).get('on_bad_item', 'stop') != 'stop'
    for role in roles:
        if cfg.get(role):
            with DefaultScope.overwrite_default_scope('mmseg'):
                dataset = DATASETS.build(cfg[role].dataset)
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
            for dataset_cfg in datasets_of(cfg[role].dataset):
                _refuse_colours(dataset_cfg, dataset, role)
            item = _item(NamedDataset(dataset), role, min(MAX_ITEMS_TRIED, len(dataset)) if skip else 1)
            if item is not None:
                _check(item, cfg.get('model') or {}, role)


def _item(dataset: NamedDataset, role: str, tries: int) -> object:
    for index in range(tries):
        try:
            item = dataset[index]
            dataset.check_values(index, item)
            return item
        except (UsageError, FileNotFoundError):  # a file cannot be used
            if tries == 1:
                raise
        except Exception as error:  # steps may raise anything
            reason = ' '.join(str(error).split())
            raise UsageError(
                f'{role}: {_step(error)} of its pipeline fails at the first item ({type(error).__name__}: {reason}): '
                f'check its arguments and its position in the pipeline'
            ) from error
    return None


def _step(error: Exception) -> str:
    """Return the name of the step that raised an error."""
    steps = [frame.f_locals.get('self') for frame, _ in walk_tb(error.__traceback__)]
    return next((type(step).__name__ for step in reversed(steps) if isinstance(step, BaseTransform)), 'a step')


def _refuse_colours(cfg: Mapping[str, Any], dataset: Any, role: str) -> None:
    """Refuse steps that would silently cut more bands or bits to 8-bit RGB."""
    names = [step.get('type') for step in cfg.get('pipeline') or ()]
    loader = next((name for name in names if name in AS_COLOURS), None)
    if cfg.get('type') != 'FolderDataset' or loader is None or not hasattr(dataset, 'get_data_info'):
        return
    path = Path(dataset.get_data_info(0)['img_path'])
    if path.is_file() and not is_plain(path):
        raise UsageError(
            f'{role}: {loader} converts images to 8-bit RGB, but {path} has other channels or more bits: use '
            f'LoadMultiBandImage, as the generated recipe does'
        )


def _check(item: object, model: Mapping[str, Any], role: str) -> None:
    inputs = item.get('inputs') if isinstance(item, Mapping) else None
    sample = item.get('data_samples') if isinstance(item, Mapping) else None
    if not isinstance(inputs, Tensor) or not isinstance(sample, SegDataSample):
        keys = ', '.join(map(str, item)) if isinstance(item, Mapping) else type(item).__name__
        raise UsageError(f'{role}: its pipeline must end with PackSegInputs, but returns {keys}: add that step')
    if 'gt_sem_seg' not in sample:
        raise UsageError(
            f'{role}: no step of its pipeline loads labels: add LoadAnnotations, or LoadMask if the data set is a '
            f'FolderDataset'
        )
    mean = (model.get('data_preprocessor') or {}).get('mean')
    channels = len(mean) if mean else (model.get('backbone') or {}).get('in_channels')
    if channels and inputs.shape[0] != channels:
        raise UsageError(
            f'{role}: images have {inputs.shape[0]} channels after the pipeline, but the model takes {channels}: check '
            f'model.data_preprocessor.mean and model.backbone.in_channels'
        )
    label, whole = tuple(sample.gt_sem_seg.shape), sample.metainfo.get('ori_shape')
    if role != 'train_dataloader' and whole and label != tuple(whole[:2]):
        raise UsageError(
            f'{role}: labels are {label[1]}x{label[0]} after the pipeline but predictions {whole[1]}x{whole[0]}, the '
            f'size of the file: load labels after the steps that resize, crop or pad images'
        )
