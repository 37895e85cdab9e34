"""Fit a recipe to a data set: its files, classes, and types of images and masks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from mmseg_volo.autotrain.label_map import Labels
from mmseg_volo.autotrain.recipe import PATIENCE, ImageProperties, started_from
from mmseg_volo.config import READ_KEYS
from mmseg_volo.datasets.mask_codes import MaskRule, ignore_index
from mmseg_volo.io.steps import PHOTOMETRIC_STEPS

ONLY_RGB = ('PhotoMetricDistortion', *PHOTOMETRIC_STEPS, 'CLAHE')  # transforms of 8-bit RGB only
ORDER = ('type', 'data_preprocessor', 'backbone', 'neck', 'decode_head', 'auxiliary_head')  # keys of a model, first
CROPS = ('LoadRandomCrop', 'RandomCrop')
HERE = '{{ fileDirname }}/'  # mmengine replaces it by the folder of the config


class Name(str):
    """The name of a variable of the config, written without quotes."""

    def __repr__(self) -> str:
        return str(self)


def resolved(value: Any, space: Mapping[str, Any]) -> Any:
    """Replace the variables in a value by their values.

    Args:
        value: of a config that `fit_recipe` returned.
        space: this config.
    """
    if isinstance(value, Name):
        return resolved(space[value], space)
    if isinstance(value, Mapping):
        return {key: resolved(v, space) for key, v in value.items()}
    return type(value)(resolved(v, space) for v in value) if isinstance(value, (list, tuple)) else value


def fit_recipe(
    cfg: dict[str, Any],
    labels: Labels,
    images: ImageProperties,
    weights: list[float] | None,
    batch: int | None,
    splits: Sequence[str],
    data_root: str,
    seed: int,
) -> dict[str, Any]:
    """Return a config that trains on lists of images; values that recur are variables at its top.

    Args:
        cfg: of `recipe.recipe` or `recipe.shipped`; changed in place.
        labels: the meaning of mask values.
        images: size and type of the images.
        weights: class weights of the loss.
        batch: images per iteration; that of `cfg` if None.
        splits: names of the lists, 'train', 'val' and perhaps 'test'.
        data_root: folder of the data.
        seed: of the training.
    """
    ignored = ignore_index(len(labels.classes))
    variables = _variables(cfg, labels, weights, data_root, ignored)
    if images.mean is not None:
        images = as_weights_expect(images, cfg['model'])
    _fit_model(cfg['model'], images, weights, ignored, len(labels.classes))
    model = {key: cfg['model'][key] for key in (*ORDER, *cfg['model']) if key in cfg['model']}
    pipelines = {
        f'{role}_pipeline': _fit_steps(cfg[f'{role}_pipeline'], images, ignored)
        for role in ('train', 'test', 'tta')
        if f'{role}_pipeline' in cfg
    }
    loaders = _loaders(cfg, batch, splits, labels.rule, ignored)
    stop = dict(type='ResumableEarlyStoppingHook', monitor='mIoU', rule='greater', min_delta=0.1, patience=PATIENCE)
    metric = {**cfg['val_evaluator'], 'type': 'SegIoUMetric'}
    if ignored != 255:
        metric['ignore_index'] = Name('ignore_index')
    own = dict(
        **variables,
        model=model,
        **pipelines,
        **loaders,
        val_evaluator=metric,
        test_evaluator=Name('val_evaluator'),
        custom_hooks=[*cfg.pop('custom_hooks', []), stop],
        randomness=dict(seed=seed),
    )
    return {**own, **{key: value for key, value in cfg.items() if key not in own and key in READ_KEYS}}


def as_weights_expect(images: ImageProperties, model: Mapping[str, Any]) -> ImageProperties:
    """Set mean and standard deviation of images of other channels than RGB so that each channel is normalised to the
    statistics that the pretrained weights were trained on.

    These are mean 0 and deviation 1 if ImageNet was normalised by its own statistics. Normalised by others (CoAtNet's:
    127.5 and 127.5), ImageNet has a mean of -0.10 and a deviation of 0.45, and so will each channel.

    Args:
        images: with the statistics of their channels.
        model: config of a model, whose `data_preprocessor` normalises RGB images as the weights expect.
    """
    before = model['data_preprocessor']
    if not started_from(model) or not before.get('mean') or not before.get('std'):
        return images
    turn = 1 if before.get('bgr_to_rgb', True) else -1  # ImageNet's as the weights had them: RGB or BGR
    shift = np.mean((np.array(IMAGENET_DEFAULT_MEAN)[::turn] * 255 - before['mean']) / before['std'])
    spread = np.mean(np.array(IMAGENET_DEFAULT_STD)[::turn] * 255 / before['std'])
    stds = np.array(images.std) / spread
    means = np.array(images.mean) - shift * stds
    mean, std = (tuple(float(f'{value:.5g}') for value in values) for values in (means, stds))
    return replace(images, mean=mean, std=std)


def _variables(
    cfg: Mapping[str, Any], labels: Labels, weights: list[float] | None, data_root: str, ignored: int
) -> dict[str, Any]:
    variables = dict(
        data_root=data_root,
        num_classes=len(labels.classes),
        ignore_index=None if ignored == 255 else ignored,
        class_weight=weights,
        crop_size=cfg['crop_size'],
    )
    return {key: value for key, value in variables.items() if value is not None}


def _fit_model(
    model: dict[str, Any], images: ImageProperties, weights: list[float] | None, ignored: int, classes: int
) -> None:
    before = model['data_preprocessor']
    before['size'] = Name('crop_size')
    if ignored != 255:
        before['seg_pad_val'] = Name('ignore_index')
    if images.mean is not None:
        for key in ('mean', 'std', 'bgr_to_rgb'):  # LoadMultiBandImage normalises
            before.pop(key, None)
        model['backbone']['in_channels'] = len(images.mean)
    for key in ('decode_head', 'auxiliary_head'):
        heads = model.get(key) or []
        for head in heads if isinstance(heads, list) else [heads]:
            head['num_classes'] = Name('num_classes')
            if classes == 2:  # otherwise mmseg warns and suggests one output
                head['out_channels'] = Name('num_classes')
            if ignored != 255:
                head['ignore_index'] = Name('ignore_index')
            loss = head.get('loss_decode')
            if isinstance(loss, dict):
                head['loss_decode'] = _loss(loss, weights if key == 'decode_head' else None)
    if isinstance(model.get('test_cfg', {}).get('crop_size'), (tuple, list)):
        model['test_cfg']['crop_size'] = Name('crop_size')


def _loss(loss: Mapping[str, Any], weights: list[float] | None) -> dict[str, Any]:
    """Return a cross-entropy with or without class weights; another loss unchanged.

    Averages over labelled pixels unless the config says otherwise. The recipes for Cityscapes and ADE20K divide by all
    pixels: few are unlabelled there, but most of an image may be here, and the loss would vanish.
    """
    if loss['type'] not in ('CrossEntropyLoss', 'WeightedCrossEntropy'):
        return dict(loss)
    kept = {key: value for key, value in loss.items() if key not in ('type', 'class_weight')}
    if weights is None:
        return dict(type='CrossEntropyLoss', **{'avg_non_ignore': True, **kept})
    return dict(type='WeightedCrossEntropy', **kept, class_weight=Name('class_weight'))


def _fit_steps(steps: Sequence[Mapping[str, Any]], images: ImageProperties, ignored: int) -> list[dict[str, Any]]:
    """Return a pipeline with the transforms that load these images and masks."""
    bands = images.mean is not None
    load = dict(type='LoadMultiBandImage', mean=[*(images.mean or ())], std=[*(images.std or ())], dtype=images.dtype)
    fitted: list[dict[str, Any]] = []
    for original in steps:
        step = dict(original)
        kind = step['type']
        if kind in CROPS:
            step['crop_size'] = Name('crop_size')
            if ignored != 255:
                step['ignore_index'] = Name('ignore_index')
        if kind == 'LoadAnnotations':
            step = dict(type='LoadMask')
        elif kind == 'TestTimeAug':
            step['transforms'] = [_fit_steps(group, images, ignored) for group in step['transforms']]
        elif bands and kind in ONLY_RGB:
            continue
        elif bands and kind == 'LoadImageFromFile':
            step = load
        elif not images.common and kind == 'LoadImageFromFile':
            step = dict(type='LoadRGBImage')
        elif bands and kind == 'ContiguousRandomFlip':
            step['type'] = 'RandomFlip'
        elif bands and kind == 'LoadRandomCrop':
            ratio = {key: step.pop(key) for key in ('scale', 'ratio_range')}
            step.pop('use_cache', None)
            fitted += [load, dict(type='LoadMask'), dict(type='RandomResize', **ratio, keep_ratio=True)]
            step['type'] = 'RandomCrop'
        fitted.append(step)
    return fitted


def _loaders(
    cfg: Mapping[str, Any], batch: int | None, splits: Sequence[str], rule: MaskRule, ignored: int
) -> dict[str, Any]:
    shipped = cfg.get('train_dataloader', {})
    count = shipped.get('num_workers', min(4, os.cpu_count() or 1))
    workers = dict(num_workers=count, persistent_workers=count > 0)
    batch = batch or shipped.get('batch_size', 2)

    def loader(split: str, pipeline: str, images: int, sampler: dict[str, Any]) -> dict[str, Any]:
        dataset = dict(
            type='FolderDataset',
            data_root=Name('data_root'),
            ann_file=f'{HERE}{split}.csv',
            classes=f'{HERE}classes.csv',
            masks=rule.kind,
            **(dict(nearest=True) if rule.nearest else {}),
            **(dict(ignore_index=Name('ignore_index')) if ignored != 255 else {}),
            pipeline=Name(pipeline),
        )
        return dict(batch_size=images, **workers, sampler=sampler, dataset=dataset)

    plain = dict(type='DefaultSampler', shuffle=False)
    return dict(
        train_dataloader=loader('train', 'train_pipeline', batch, dict(type='ResumableInfiniteSampler', shuffle=True)),
        val_dataloader=loader('val', 'test_pipeline', 1, plain),
        test_dataloader=loader('test', 'test_pipeline', 1, plain) if 'test' in splits else Name('val_dataloader'),
    )
