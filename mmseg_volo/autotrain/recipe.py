"""Build the recipe of a training: of a backbone, or of a shipped config, for images of any data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_volo.autotrain.hyperparameters import drop_path_rate, optimiser
from mmseg_volo.config import CONFIGS, find_config, load_config, shipped_configs
from mmseg_volo.errors import UsageError
from mmseg_volo.models import pretrained as zoo
from mmseg_volo.utils.text import did_you_mean

MODELS_BY_NAME = {
    f'{"t2t_vit" if family == "T2TViT" else family.lower()}_{arch}': (family, arch)
    for family in zoo.ARCHS
    for arch in zoo.PUBLISHED[family]
}
CROP = 512  # pixels per side at most, as in ADE20K's recipes
CPU_BATCH = 4
EPOCHS = 150
SAMPLES = (4_000, 640_000)  # of a training, least and most: 250 and 40,000 updates of 16
SCRATCH = 2  # times as many samples without ImageNet weights
VALIDATIONS, PATIENCE = 20, 6  # per training, and without a better score until it ends early
UNEVEN = 10  # ratio of pixels between classes, from which the loss is weighted


@dataclass(frozen=True)
class ImageProperties:
    """Size and type of the images of a data set."""

    width: int  # median, if sizes differ
    height: int
    mixed: bool  # whether sizes differ
    mean: tuple[float, ...] | None = None  # by channel; None for 8-bit RGB
    std: tuple[float, ...] | None = None
    dtype: str = 'uint8'  # of their pixels
    common: bool = True  # whether mmseg's loader reads them as ours does


@dataclass(frozen=True)
class InitialWeights:
    """The initial weights of a backbone."""

    checkpoint: str | None  # None for random weights
    pixels: int  # side of the images that they were trained on
    note: str  # description for the summary
    mean: tuple[float, ...] | None = None  # of colours from 0 to 255; those of the recipe if None
    std: tuple[float, ...] | None = None
    order: str = 'RGB'  # or 'BGR'
    said: bool = False  # whether mean, std and order are known to be those of its training
    own: bool = False  # whether it was trained on channels other than RGB
    channels: int = 3  # of the images that it was trained on
    prefix: str = ''  # of the backbone's keys in the file
    whole: bool = False  # whether the file holds a segmentor, whose heads are loaded where they fit


def is_shipped(name: str) -> bool:
    """Whether `--model` names a config, not a backbone.

    Raises:
        UsageError: it names neither.
    """
    if name in MODELS_BY_NAME:
        return False
    try:
        find_config(name)
    except UsageError:
        known = [*MODELS_BY_NAME, *shipped_configs()]
        raise UsageError(
            f'--model {name} is no backbone (caformer_s18, volo_d1, ...: mmseg-volo weights list) and no config'
            f'{did_you_mean(name, known)}'
        ) from None
    return True


def crop_of(images: ImageProperties, size: Sequence[int] | None) -> tuple[int, int]:
    """Return (height, width) of crops: `--size`, or that of the images, at most 512x512, in multiples of 32."""
    if size:
        if len(size) > 2 or min(size) < 32:
            raise UsageError(f'--size must be SIDE or HEIGHT WIDTH of at least 32, got {" ".join(map(str, size))}')
        return size[0], size[-1]
    height, width = (min(CROP, max(64, side // 32 * 32)) for side in (images.height, images.width))
    return height, width


def length_of(count: int, batch: int, epochs: float | None, scratch: bool) -> int:
    """Return the iterations of a training on `count` images."""
    samples: float = min(max(EPOCHS * count, SAMPLES[0]), SAMPLES[1]) * (SCRATCH if scratch else 1)
    if epochs is not None:
        if epochs <= 0:
            raise UsageError(f'--epochs must be more than 0, got {epochs:g}')
        samples = epochs * count
    return max(1, math.ceil(samples / batch))


def class_weights(pixels: Sequence[int]) -> list[float] | None:
    """Return class weights by training pixels: the square root of ENet's 1 / ln(1.02 + share) (arXiv 1606.02147),
    scaled to a mean of 1 under the root. None if classes are even enough; 1 for a class without pixels.
    """
    counts = np.array(pixels, float)
    held = counts > 0
    if held.sum() < 2 or counts[held].max() < UNEVEN * counts[held].min():
        return None
    raw = 1 / np.log(1.02 + counts[held] / counts.sum())
    weights = np.ones(len(counts))
    weights[held] = np.sqrt(raw / raw.mean())
    return [round(float(w), 2) for w in weights]


def recipe(
    model: str,
    start: InitialWeights,
    images: ImageProperties,
    crop: tuple[int, int],
    batch: int,
    iters: int,
    count: int,
) -> dict[str, Any]:
    """Return the config of a backbone with UPerNet and AdamW, which `fit_recipe` completes with files and classes.

    Args:
        model: a backbone, a key of `MODELS_BY_NAME`.
        start: its initial weights.
        images: size and type of the images.
        crop: (height, width).
        batch: images per iteration.
        iters: length of the training.
        count: number of training images; validations are at least an epoch apart.
    """
    cfg = {**_leaf('models/upernet'), **_leaf('schedules/adamw_160k'), **_leaf('default_runtime')}
    cfg['crop_size'] = crop
    cfg['model'].update(_model(model, start, cfg['model'], crop, images))
    cfg.update(optimiser(MODELS_BY_NAME[model][0], start.checkpoint is not None, batch, iters, cfg))
    every = min(iters, max(math.ceil(iters / VALIDATIONS), math.ceil(count / batch)))
    cfg['train_cfg'].update(max_iters=iters, val_interval=every)
    hooks = cfg['default_hooks']
    hooks['logger']['interval'] = min(hooks['logger']['interval'], every)
    hooks['checkpoint'].update(interval=every, max_keep_ckpts=1)
    return cfg | _pipelines(images, crop)


def _leaf(name: str) -> dict[str, Any]:
    """Return a file of `configs/_base_`, which shipped configs inherit from."""
    return Config.fromfile(CONFIGS / '_base_' / f'{name}.py').to_dict()


def _model(
    name: str, start: InitialWeights, base: dict[str, Any], crop: tuple[int, int], images: ImageProperties
) -> dict[str, Any]:
    family, arch = MODELS_BY_NAME[name]
    with torch.device('meta'):
        built = MODELS.build(dict(type=family, arch=arch))
    millions = sum(p.numel() for p in built.parameters()) / 1e6
    rate = drop_path_rate(family, millions, start.checkpoint is not None)
    backbone: dict[str, Any] = dict(type=family, arch=arch, drop_path_rate=rate)
    if start.pixels != 224:
        backbone['pretrain_img_size'] = start.pixels
    dims, strides = [*built.out_channels], [*built.out_strides]
    fitted: dict[str, Any] = dict(backbone=backbone)
    if start.checkpoint:
        owner = fitted if start.whole else backbone
        owner['init_cfg'] = dict(type='Pretrained', checkpoint=start.checkpoint)
        if start.prefix and not start.whole:
            backbone['init_cfg']['prefix'] = start.prefix
    if start.mean and start.std:
        normal = dict(mean=[*start.mean], std=[*start.std], bgr_to_rgb=start.order == 'RGB')
        fitted['data_preprocessor'] = {**base['data_preprocessor'], **normal}
    if strides != [4, 8, 16, 32]:
        backbone['out_norm'] = False  # LV-ViT's neck takes raw taps
        fitted['neck'] = dict(type='StridePyramid', in_channels=dims, in_strides=strides, refine=True)
    fitted['decode_head'] = dict(base['decode_head'], in_channels=dims)
    fitted['auxiliary_head'] = dict(base['auxiliary_head'], in_channels=dims[2])
    if images.width * images.height > 4 * max(crop[0] * crop[1], CROP**2):
        fitted['test_cfg'] = dict(mode='slide', crop_size=crop, stride=tuple(side * 2 // 3 for side in crop))
    return fitted


def _pipelines(images: ImageProperties, crop: tuple[int, int]) -> dict[str, Any]:
    """Return the pipelines and the metric of Cityscapes, for images and crops of these sizes."""
    scale, leaf = (images.width, images.height), _leaf('datasets/cityscapes')
    cfg = {key: leaf[key] for key in ('train_pipeline', 'test_pipeline', 'tta_pipeline', 'val_evaluator')}
    cfg['train_pipeline'][0].update(scale=scale, crop_size=crop)
    if images.mixed:  # as for ADE20K
        cfg['test_pipeline'].insert(1, dict(type='Resize', scale=scale, keep_ratio=True))
        groups = cfg['tta_pipeline'][1]['transforms']
        sizes = [tuple(int(side * step['scale_factor']) for side in scale) for step in groups[0]]
        groups[0] = [dict(type='Resize', scale=size, keep_ratio=True) for size in sizes]
    return cfg


def shipped(name: str, crop: Sequence[int] | None, batch: int | None) -> dict[str, Any]:
    """Return a shipped config, whose data set `fit_recipe` replaces; the rest of its training is unchanged.

    Args:
        name: see `find_config`.
        crop: `--size`, instead of its own.
        batch: images per iteration, instead of its own.
    """
    cfg = load_config(name).to_dict()
    cfg['train_pipeline'] = cfg['train_dataloader']['dataset']['pipeline']
    own = tuple(cfg['model']['data_preprocessor'].get('size') or cfg.get('crop_size') or (CROP, CROP))
    cfg['crop_size'] = crop_of(ImageProperties(0, 0, False), crop) if crop else own
    if crop:
        for step in cfg['train_pipeline']:
            if 'crop_size' in step:
                step['crop_size'] = cfg['crop_size']
        if cfg['model'].get('test_cfg', {}).get('mode') == 'slide':
            sides = cfg['crop_size']
            cfg['model']['test_cfg'].update(crop_size=sides, stride=tuple(side * 2 // 3 for side in sides))
    if batch:
        cfg['train_dataloader']['batch_size'] = batch
    cfg['default_hooks']['checkpoint'].setdefault('save_best', 'mIoU')
    return cfg


def started_from(model: Mapping[str, Any]) -> str | None:
    """Return the checkpoint that a model or its backbone starts from, by `init_cfg`; None for random weights."""
    for component in (model.get('backbone') or {}, model):
        start = component.get('init_cfg')
        if isinstance(start, Mapping) and start.get('checkpoint'):
            return start['checkpoint']
    return None


def set_length(cfg: dict[str, Any], iters: int) -> None:
    """Set the length of a training, and scale its schedules and intervals in proportion."""
    factor = iters / cfg['train_cfg']['max_iters']
    for schedule in cfg['param_scheduler']:
        schedule.update({key: round(schedule[key] * factor) for key in ('begin', 'end') if key in schedule})
        schedule['end'] = max(schedule.get('end', iters), schedule.get('begin', 0) + 1)
    hook = cfg['default_hooks']['checkpoint']
    hook['interval'] = max(1, round(hook['interval'] * factor))
    loop = cfg['train_cfg']
    loop.update(max_iters=iters, val_interval=max(1, round(loop['val_interval'] * factor)))


def model_words(cfg: dict[str, Any]) -> str:
    """Describe a model in a few words."""
    backbone, head = cfg['model']['backbone'], cfg['model']['decode_head']['type']
    arch = backbone.get('arch', '')
    return f'{backbone["type"]} {arch if isinstance(arch, str) else "of its own sizes"} + {head}'


def absolute(path: str | Path) -> str:
    """Return a path in the form that configs hold."""
    return Path(path).absolute().as_posix()
