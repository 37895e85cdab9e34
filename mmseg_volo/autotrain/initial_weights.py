"""Fetch and check the initial weights of a training on a folder, and describe them for its summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS

from mmseg_volo.autotrain import recipe as plan
from mmseg_volo.config import load_config
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import RECORD
from mmseg_volo.io.model_spec import meta_of
from mmseg_volo.io.steps import MULTI_BAND_STEPS
from mmseg_volo.io.weights import (
    check_fit,
    count_positions,
    ensure_local,
    fetch_pretrained,
    local_file,
    read_backbone,
    read_source,
    select_weights,
    unwrap_state_dict,
    whole_prefix,
)
from mmseg_volo.models import pretrained as zoo
from mmseg_volo.models.backbones.base import Backbone
from mmseg_volo.models.normalisation import OWN, Normalisation, expected_normalisation, trained_size
from mmseg_volo.models.partial_weights import backbone_words

HEAD = 'decode_head.'  # prefix of the keys of a segmentor's head


def starting_point(model: str, given: str | None) -> plan.InitialWeights | None:
    """Fetch the initial weights of a training; random ones only if `given` is 'none'.

    Args:
        model: `--model`: the name of a backbone or a config.
        given: `--weights`, see `starting_weights`; None or 'none' for a config.

    Returns:
        The weights of a backbone; None for a config, which names its own.

    Raises:
        FileNotFoundError, UsageError: they are not available, or do not fit.
    """
    if not plan.is_shipped(model):
        return starting_weights(model, given)
    if given not in (None, 'none'):
        raise UsageError(
            f"--weights {given} is for a backbone: {model} is a config, which names its own; it takes 'none' only. To "
            f'start from a whole checkpoint, give --cfg-options load_from={given}'
        )
    model_cfg = load_config(model).model
    if given == 'none':
        model_cfg = {**model_cfg, 'backbone': {**model_cfg['backbone'], 'init_cfg': None}}
    fetch_pretrained(model_cfg, '--weights none')
    try_start(model_cfg)
    return None


def try_start(model: Mapping[str, Any]) -> None:
    """Check that the initial weights of a model, or of its backbone, fit the backbone; published ones are not checked.

    Args:
        model: of a config.

    Raises:
        FileNotFoundError, UsageError: they cannot be read, or do not fit.
    """
    backbone = model.get('backbone') or {}
    source, own = plan.started_from(model), backbone.get('init_cfg')
    prefix = own.get('prefix', '') if isinstance(own, Mapping) else ''
    if backbone.get('type') not in zoo.ARCHS or not isinstance(source, str):
        return
    if '://' in source and zoo.record_of(source):
        return
    try:
        with torch.device('meta'):
            built = MODELS.build({**backbone, 'init_cfg': None})
    except (KeyError, TypeError, ValueError):  # the runner reports it
        return
    check_fit(built, built.converted(read_backbone(source, prefix)), source)


def starting_weights(name: str, given: str | None) -> plan.InitialWeights:
    """Fetch the ImageNet weights of a backbone if they are not there, and check that they fit.

    Args:
        name: e.g. 'caformer_s18'.
        given: `--weights`: a source for `init_cfg`, 'none', or None for the published ones.

    Raises:
        FileNotFoundError, UsageError: they are not available, or do not fit. Random ones never replace them unless
            `given` is 'none'.
    """
    if given == 'none':
        return plan.InitialWeights(None, 224, 'none, from scratch (--weights none)')
    family, arch = plan.MODELS_BY_NAME[name]
    main = zoo.PUBLISHED[family][arch].weights
    published = None if main == zoo.NO_WEIGHTS else main
    if given is None:
        return _published_weights(name, published)
    known = zoo.record_of(given) if '://' in given else None  # an address of published weights
    _refuse_others(known, given, name, published)
    path = local_file(given)
    if not path.is_file():
        raise FileNotFoundError(f'--weights {given}: no file at {path.absolute()}')
    start = plan.InitialWeights(
        given if '://' in given else str(path.absolute()), known.pixels if known else 224, given
    )
    content = {} if known else read_source(given)
    if content:
        known, pixels = trained_size(given, content)
        _refuse_others(known, given, name, published)
        _refuse_whole(content, given, name, published)
        start = _tried(replace(start, pixels=pixels or 224), name, content, given)
    return _with_normalisation(start, expected_normalisation(given, content), published)


def _refuse_others(known: zoo.Weights | None, given: str, name: str, published: str | None) -> None:
    family, arch = plan.MODELS_BY_NAME[name]
    if known and (known.family, known.arch) != (family, arch):
        raise UsageError(
            f'--weights {given} is for {known.family} {known.arch}, and --model {name} is {family} {arch}: use '
            f'{published or "none"}, or another --model'
        )


def _refuse_whole(content: Mapping[str, Any], given: str, name: str, published: str | None) -> None:
    """Refuse a segmentor whose file says that it has another backbone."""
    record = meta_of(content).get(RECORD)
    theirs = backbone_words(record.get('model') if isinstance(record, Mapping) else None)
    ours = ' '.join(plan.MODELS_BY_NAME[name])
    if theirs and theirs != ours and not ours.startswith(f'{theirs} '):  # an arch of its own sizes has no name
        raise UsageError(
            f'--weights {given} is for {theirs}, and --model {name} is {ours}: use {published or "none"}, or another '
            f'--model'
        )


def _tried(start: plan.InitialWeights, name: str, content: Mapping[str, Any], given: str) -> plan.InitialWeights:
    """Add the facts that the weights show: their prefix in the file, and channels and size of the images.

    Raises:
        UsageError: they do not fit the backbone.
    """
    whole = unwrap_state_dict(content, given)
    prefix = whole_prefix(whole)
    weights = select_weights(content, given, prefix)
    start = replace(start, prefix=prefix, whole=any(key.startswith(HEAD) for key in whole) and bool(prefix))
    try:
        channels, pixels = trained_on(name, weights, start.pixels)
        backbone = _on_meta(name, channels, pixels)
        check_fit(backbone, backbone.converted(weights), f'--weights {given}', hint='')
    except UsageError as error:
        raise UsageError(f'{error}; give weights of {name}, or another --model') from None
    except (AttributeError, IndexError, KeyError, RuntimeError, ValueError) as error:  # shapes of anything
        raise UsageError(f'--weights {given} does not fit {name}: {" ".join(str(error).split())}') from None
    return replace(start, channels=channels, pixels=pixels)


def trained_on(name: str, weights: Mapping[str, torch.Tensor], pixels: int) -> tuple[int, int]:
    """Return channels and side of the images that weights of a backbone were trained on, by their shapes.

    Args:
        name: e.g. 'caformer_s18'.
        weights: in a layout that the family converts.
        pixels: the side to return if no table of positions shows it.
    """
    backbone = _on_meta(name, 3, 224)
    own, theirs = backbone.state_dict(), backbone.converted(weights)
    stem = theirs.get(backbone.stem_key)
    channels = 3
    if stem is not None and stem.ndim == own[backbone.stem_key].ndim:
        channels = max(1, stem.shape[1] * 3 // own[backbone.stem_key].shape[1])
    for key in own.keys() & theirs.keys():
        side, own_side = count_positions(key, theirs[key]), count_positions(key, own[key])
        if side and own_side:
            return channels, max(32, 224 * side // own_side)
    return channels, pixels


def _on_meta(name: str, channels: int, pixels: int) -> Backbone:
    family, arch = plan.MODELS_BY_NAME[name]
    with torch.device('meta'):
        return MODELS.build(dict(type=family, arch=arch, in_channels=channels, pretrain_img_size=pixels))


def _with_normalisation(
    start: plan.InitialWeights, expected: Normalisation | None, published: str | None
) -> plan.InitialWeights:
    """Add the normalisation that the weights expect of images."""
    like, name = zoo.record_of(published) if published else None, published or 'ImageNet'
    mean, std = (like.mean, like.std) if like else (start.mean, start.std)
    if expected is None:
        note = f'{start.note}, which does not say how its images were normalised: as for {name}'
        return replace(start, note=note, mean=mean, std=std)
    if expected.order == OWN or len(expected.mean) not in (0, 3):
        note = f'{start.note}, trained on {expected}, the statistics of its own data'
        return replace(start, note=note, own=True, mean=mean, std=std)
    mean, std = expected.mean or (0.0,) * 3, expected.std or (1.0,) * 3
    return replace(start, mean=mean, std=std, order=expected.order, said=True)


def _published_weights(name: str, source: str | None) -> plan.InitialWeights:
    scratch = '--weights none trains from random ones, which needs more images and time'
    if source is None:
        raise UsageError(f'no weights are published for --model {name}: give your own by --weights, or {scratch}')
    try:
        ensure_local(source)
    except UsageError as error:
        raise UsageError(f'--model {name} starts from {source}: {error}; {scratch}') from None
    known = zoo.record_of(source)
    assert known is not None
    note = f'{source}, ImageNet top-1 {known.top1}'
    return plan.InitialWeights(source, known.pixels, note, known.mean, known.std, said=True)


def for_images(start: plan.InitialWeights, images: plan.ImageProperties, model: str) -> plan.InitialWeights:
    """Adapt the note of the initial weights to the images of the data.

    Args:
        start: returned by `starting_weights`.
        images: of the data.
        model: `--model`.

    Raises:
        UsageError: the weights are of another number of channels than the images, and not of RGB, which fits any.
    """
    count = len(images.mean) if images.mean is not None else 3
    if start.checkpoint and start.channels not in (3, count):
        raise UsageError(
            f'--weights {start.checkpoint} takes {start.channels} channels, and these images have {count}: '
            f'leave --weights out, or give weights of {model} for {count} channels or for RGB'
        )
    if start.own and images.mean is None:
        family, arch = plan.MODELS_BY_NAME[model]
        main = zoo.PUBLISHED[family][arch].weights
        like = 'ImageNet' if main == zoo.NO_WEIGHTS else main
        return replace(start, note=f'{start.note}; RGB is normalised as for {like}')
    return start


def weight_words(model: str, start: plan.InitialWeights | None, cfg: Mapping[str, Any]) -> str:
    """Describe the initial weights of a fitted config in a few words."""
    source = plan.started_from(cfg['model'])
    if start:
        return start.note
    return f'{source}, of {model}' if source else 'none: from scratch'


def pixel_words(cfg: Mapping[str, Any], start: plan.InitialWeights | None, images: plan.ImageProperties) -> str:
    """Describe how a fitted config normalises images in a few words.

    Args:
        cfg: returned by `fit_recipe`.
        start: the initial weights; None for those of a config.
        images: of the data.
    """
    before = cfg['model']['data_preprocessor']
    source = plan.started_from(cfg['model'])
    if images.mean is not None:
        return _channel_words(cfg['test_pipeline'], images)
    order = 'RGB' if before.get('bgr_to_rgb') or before.get('rgb_to_bgr') else 'BGR'
    if before.get('mean') is None:
        return f'{order} values from 0 to 255'
    mean, std = (' '.join(f'{value:g}' for value in before[key]) for key in ('mean', 'std'))
    known = zoo.record_of(source) if source and start is None else None
    theirs = order == 'RGB' and known and (*before['mean'], *before['std']) == (*known.mean, *known.std)
    confirmed = start.said if start else theirs
    return f'{order}, mean {mean}, std {std}{", as these weights expect" if source and confirmed else ""}'


def _channel_words(steps: list[Mapping[str, Any]], images: plan.ImageProperties) -> str:
    step = next((step for step in steps if step['type'] in MULTI_BAND_STEPS), None)
    means, stds = (np.array(step[key]) if step else None for key in ('mean', 'std'))
    if step is None:
        return 'as the config says'
    mean, std = np.mean((np.array(images.mean) - means) / stds), np.mean(np.array(images.std) / stds)
    if abs(mean) < 0.005 and abs(std - 1) < 0.005:
        return 'each channel by its own mean and standard deviation in these images'
    return (
        f'each channel of these images gets a mean of {mean:.2f} and a standard deviation of {std:.2f}, as ImageNet '
        f'has on average when it is normalised as these weights expect'
    )
