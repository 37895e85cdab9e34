"""What a training on a folder starts from, fetched and tried before any work is done, and what the table says of it."""

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

HEAD = 'decode_head.'  # begins the keys of a segmentor's head


def starting_point(model: str, given: str | None) -> plan.InitialWeights | None:
    """What a training starts from; random weights only where `given` says so.

    Args:
        model: `--model`: a backbone's name or a config.
        given: `--weights`, see `starting_weights`; of a config None or 'none'.

    Returns:
        None where a config says it.

    Raises:
        FileNotFoundError, UsageError: it cannot be had, or does not fit.
    """
    if not plan.is_shipped(model):
        return starting_weights(model, given)
    if given not in (None, 'none'):
        raise UsageError(
            f"--weights {given} is for a backbone: {model} is a config, which names its own; it takes 'none' only. A "
            f'whole checkpoint is begun from with --cfg-options load_from={given}'
        )
    parts = load_config(model).model
    if given == 'none':
        parts = {**parts, 'backbone': {**parts['backbone'], 'init_cfg': None}}
    fetch_pretrained(parts, '--weights none')
    try_start(parts)
    return None


def try_start(model: Mapping[str, Any]) -> None:
    """Sees that what a config's backbone starts from, alone or with the whole model, fits it, before anything is
    written; published weights do.

    Args:
        model: of a config.

    Raises:
        FileNotFoundError, UsageError: it cannot be read, or does not.
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
    except (KeyError, TypeError, ValueError):  # the runner says it
        return
    check_fit(built, built.converted(read_backbone(source, prefix)), source)


def starting_weights(name: str, given: str | None) -> plan.InitialWeights:
    """The ImageNet weights of a backbone, fetched if need be, and tried on it.

    Args:
        name: e.g. 'caformer_s18'.
        given: `--weights`: a source for `init_cfg`, 'none', or None for the published ones.

    Raises:
        FileNotFoundError, UsageError: they cannot be had, or do not fit; random ones take their place where 'none' asks
            for it only.
    """
    if given == 'none':
        return plan.InitialWeights(None, 224, 'none, as --weights none says: from scratch')
    family, arch = plan.MODELS_BY_NAME[name]
    main = zoo.PUBLISHED[family][arch].weights
    published = None if main == zoo.NO_WEIGHTS else main
    if given is None:
        return _published_weights(name, published)
    known = zoo.record_of(given) if '://' in given else None  # an address where published weights lie
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
            f'--weights {given} is for {known.family} {known.arch}, and --model {name} is {family} {arch}: take '
            f'{published or "none"}, or another --model'
        )


def _refuse_whole(content: Mapping[str, Any], given: str, name: str, published: str | None) -> None:
    """A segmentor that says itself that it has another backbone."""
    record = meta_of(content).get(RECORD)
    theirs = backbone_words(record.get('model') if isinstance(record, Mapping) else None)
    ours = ' '.join(plan.MODELS_BY_NAME[name])
    if theirs and theirs != ours and not ours.startswith(f'{theirs} '):  # an arch of its own sizes has no name
        raise UsageError(
            f'--weights {given} is for {theirs}, and --model {name} is {ours}: take {published or "none"}, or another '
            f'--model'
        )


def _tried(start: plan.InitialWeights, name: str, content: Mapping[str, Any], given: str) -> plan.InitialWeights:
    """A start with what the weights themselves show: where they lie in their file, channels and size of images.

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
    """Channels and side of the images that weights of a backbone were trained on, by their shapes.

    Args:
        name: e.g. 'caformer_s18'.
        weights: in a layout that the family knows.
        pixels: the side where no table of positions shows it.
    """
    backbone = _on_meta(name, 3, 224)
    own, theirs = backbone.state_dict(), backbone.converted(weights)
    stem = theirs.get(backbone.stem_key)
    channels = 3
    if stem is not None and stem.ndim == own[backbone.stem_key].ndim:
        channels = max(1, stem.shape[1] * 3 // own[backbone.stem_key].shape[1])
    for key in own.keys() & theirs.keys():
        if side := count_positions(key, theirs[key]):
            return channels, max(32, 224 * side // count_positions(key, own[key]))
    return channels, pixels


def _on_meta(name: str, channels: int, pixels: int) -> Backbone:
    family, arch = plan.MODELS_BY_NAME[name]
    with torch.device('meta'):
        return MODELS.build(dict(type=family, arch=arch, in_channels=channels, pretrain_img_size=pixels))


def _with_normalisation(
    start: plan.InitialWeights, expected: Normalisation | None, published: str | None
) -> plan.InitialWeights:
    """A start with how images are to be normalised for it."""
    like, name = zoo.record_of(published) if published else None, published or 'ImageNet'
    usual = dict(mean=like.mean, std=like.std) if like else {}
    if expected is None:
        note = f'{start.note}, which does not say how its images were normalised: as for {name}'
        return replace(start, note=note, **usual)
    if expected.order == OWN or len(expected.mean) not in (0, 3):
        note = f'{start.note}, trained on {expected}, which are the statistics of its data'
        return replace(start, note=note, own=True, **usual)
    zero, one = (0.0,) * 3, (1.0,) * 3
    normal = dict(mean=expected.mean or zero, std=expected.std or one)
    return replace(start, **normal, order=expected.order, said=True)


def _published_weights(name: str, source: str | None) -> plan.InitialWeights:
    scratch = '--weights none trains from random ones, which takes more images and time'
    if source is None:
        raise UsageError(f'for --model {name} no weights are published: give your own by --weights, or {scratch}')
    try:
        ensure_local(source)
    except UsageError as error:
        raise UsageError(f'--model {name} starts from {source}: {error}; {scratch}') from None
    row = zoo.record_of(source)
    return plan.InitialWeights(source, row.pixels, f'{source}, ImageNet top-1 {row.top1}', row.mean, row.std, said=True)


def for_images(start: plan.InitialWeights, images: plan.ImageProperties, model: str) -> plan.InitialWeights:
    """What a training on these images starts from.

    Args:
        start: of `starting_weights`.
        images: of the data.
        model: `--model`.

    Raises:
        UsageError: the weights see another number of channels, and are not those of RGB images, which fit any.
    """
    count = len(images.mean) if images.mean is not None else 3
    if start.checkpoint and start.channels not in (3, count):
        raise UsageError(
            f'--weights {start.checkpoint} sees {start.channels} channels, and these images have {count}: '
            f'leave --weights out, or give weights of {model} for {count} channels or for RGB'
        )
    if start.own and images.mean is None:
        family, arch = plan.MODELS_BY_NAME[model]
        main = zoo.PUBLISHED[family][arch].weights
        like = 'ImageNet' if main == zoo.NO_WEIGHTS else main
        return replace(start, note=f'{start.note}; RGB is normalised as for {like}')
    return start


def weight_words(model: str, start: plan.InitialWeights | None, cfg: Mapping[str, Any]) -> str:
    """What the fitted config of a training starts from, in a few words."""
    source = plan.started_from(cfg['model'])
    if start:
        return start.note
    return f'{source}, as {model} says' if source else 'none: from scratch'


def pixel_words(cfg: Mapping[str, Any], start: plan.InitialWeights | None, images: plan.ImageProperties) -> str:
    """How the fitted config of a training normalises images, in a few words.

    Args:
        cfg: of `fit`.
        start: None where a config says it.
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
    said = start.said if start else theirs
    return f'{order}, mean {mean}, std {std}{", as these weights expect" if source and said else ""}'


def _channel_words(steps: list[Mapping[str, Any]], images: plan.ImageProperties) -> str:
    step = next((step for step in steps if step['type'] in MULTI_BAND_STEPS), None)
    means, stds = (np.array(step[key]) if step else None for key in ('mean', 'std'))
    if step is None:
        return 'as the config says'
    mean, std = np.mean((np.array(images.mean) - means) / stds), np.mean(np.array(images.std) / stds)
    if abs(mean) < 0.005 and abs(std - 1) < 0.005:
        return 'each channel by its own mean and standard deviation in these images'
    return (
        f'each channel of these images gets a mean of {mean:.2f} and a standard deviation of {std:.2f}: what ImageNet '
        f'has on the average where it is normalised as these weights expect'
    )
