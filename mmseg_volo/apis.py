"""Inference in two calls: `model = load(...)`, `predict(model, image)`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, MODELS
from torch import nn

from mmseg_volo.config import load_config
from mmseg_volo.engine.hooks import RECORD
from mmseg_volo.errors import UsageError
from mmseg_volo.segmentors import masks_only
from mmseg_volo.weights import read_checkpoint, strict_load, unwrap

Source = str | Path
CHECKPOINT_SUFFIXES = ('.pth', '.pt', '.tar', '.safetensors')


@dataclass(frozen=True)
class Prediction:
    """What `predict` returns."""

    mask: np.ndarray  # (H, W) class indices, of the image's size; uint8, uint16 beyond 256 classes
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]  # RGB, one per class


def load(
    config_or_checkpoint: Source | Config, checkpoint: Source | None = None, device: str | None = None
) -> nn.Module:
    """Builds a segmentor for inference and loads its weights, strictly and without executing anything in the file.

    Args:
        config_or_checkpoint: a config (path, name of a shipped one, or `Config`), or a checkpoint that `tools/train.py`
            wrote, which knows its model, classes and colours.
        checkpoint: the weights, when a config was given; without it they are random.
        device: e.g. 'cuda:0', 'cpu'; the GPU if None and there is one.

    Returns:
        The segmentor in eval mode, with `cfg` and `dataset_meta`.

    Raises:
        FileNotFoundError, ValueError: a file is missing, is no config or checkpoint, or does not fit the model.
    """
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    given = str(config_or_checkpoint)
    weights: dict[str, Any] | None = None
    if not isinstance(config_or_checkpoint, Config) and given.endswith(CHECKPOINT_SUFFIXES):
        if checkpoint is not None:
            raise UsageError(f'expected a config and a checkpoint, got two checkpoints: {given} and {checkpoint}')
        checkpoint, weights = given, read_checkpoint(given)
        record = weights.get('meta', {}).get(RECORD)
        if record is None:
            raise UsageError(
                f'{given} does not say which model it is for: give its config too, load(CONFIG, {given!r})'
            )
        cfg = Config(record)
    else:
        cfg = copy.deepcopy(config_or_checkpoint) if isinstance(config_or_checkpoint, Config) else load_config(given)
        if checkpoint is not None:
            weights = read_checkpoint(checkpoint)
    _without_init_cfg(cfg.model)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    meta = None
    if weights is not None:
        strict_load(model, unwrap(weights, str(checkpoint)), str(checkpoint))
        meta = weights.get('meta')
    model.cfg = cfg
    model.dataset_meta = (meta or {}).get('dataset_meta') or _dataset_meta(cfg)
    return model.to(device).eval()


def _without_init_cfg(model: ConfigDict) -> None:
    """A trained checkpoint holds the backbone too: its ImageNet weights need not be fetched."""
    for part in model.values():
        if isinstance(part, Mapping) and 'init_cfg' in part:
            part['init_cfg'] = None


def _dataset_meta(cfg: Config) -> dict[str, Any]:
    """Classes and colours from the data set that the config names, without looking at its files."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': [], 'lazy_init': True})
    return dataset.metainfo


def read_image(path: Source) -> np.ndarray:
    """An image file as uint8 RGB (H, W, 3), turned as its EXIF orientation says.

    Raises:
        FileNotFoundError, ValueError: it is missing, or no readable picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no image at {path.absolute()}')
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise ValueError(f'{path} ({data.size} bytes) is not a readable image: repair it or leave it out')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def predict(model: nn.Module, image: Source | np.ndarray) -> Prediction:
    """Segments one image.

    Args:
        model: from `load`.
        image: path of a file, or uint8 RGB (H, W, 3); a 2-D uint8 array is taken as grey.

    Raises:
        FileNotFoundError, ValueError: the file is missing or no picture, or the array is not of that kind.
    """
    if not isinstance(image, np.ndarray):
        image = read_image(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(
            f'expected an image of dtype uint8 and shape (H, W, 3) in RGB order, or (H, W), '
            f'got {image.dtype} of shape {image.shape}: convert it first'
        )
    bgr = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
    with DefaultScope.overwrite_default_scope('mmseg'):
        steps = [copy.deepcopy(t) for t in model.cfg.test_pipeline if t['type'] != 'LoadAnnotations']
        steps[0] = dict(type='LoadImageFromNDArray')
        data = Compose(steps)(dict(img=bgr))
    with torch.inference_mode(), masks_only(model):
        result = model.test_step(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]))[0]
    classes, palette = (model.dataset_meta[k] for k in ('classes', 'palette'))
    mask = result.pred_sem_seg.data[0].cpu().numpy()
    return Prediction(mask.astype(np.uint8 if len(classes) <= 256 else np.uint16), classes, palette)
