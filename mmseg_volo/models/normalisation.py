"""Compare how a model's images are normalised with how its weights were trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from mmseg_volo.io.allowed.arguments import EACH_CHANNEL, words
from mmseg_volo.io.allowed.backbones import PRETRAINED
from mmseg_volo.io.allowed.kinds import Table
from mmseg_volo.io.checkpoint import RECORD
from mmseg_volo.io.model_spec import meta_of
from mmseg_volo.io.steps import MULTI_BAND_STEPS
from mmseg_volo.io.weights import read_source
from mmseg_volo.models.pretrained import Weights, available, record_of

PIXELS = 'pixels'  # meta[PIXELS] of converted backbone weights: a Normalisation as a dict
OWN = 'file'  # order of channels that are not colours
SEEN = 'mmseg_volo.seen'  # key in torch's metadata of a state dict, under '': (source, Normalisation)
TRAINED = 'trained'  # meta[TRAINED] of converted weights: their published `checkpoint`, and `pixels`
PIXELS_TABLE = Table({'mean': EACH_CHANNEL, 'std': EACH_CHANNEL, 'order': words('RGB', 'BGR', OWN)})  # meta[PIXELS]


class Normalisation(NamedTuple):
    """(value - mean) / std, by channel in the network's order."""

    mean: tuple[float, ...]  # in units of the file, 0 to 255 for colours; empty if images are not normalised
    std: tuple[float, ...]
    order: str = 'RGB'  # or 'BGR', or OWN

    def __str__(self) -> str:
        if {*self.mean} <= {0} and {*self.std} <= {1}:
            return f'{self.order} values from 0 to 255'
        mean, std = (', '.join(f'{value:g}' for value in values) for values in (self.mean, self.std))
        return f'{"channels as in its files" if self.order == OWN else self.order} of mean {mean} and std {std}'

    def like(self, other: Normalisation) -> bool:
        """Whether both give the same pixels, up to rounding."""
        count = max(len(self.mean), len(other.mean))
        ours, theirs = ((a.mean or (0,) * count, a.std or (1,) * count) for a in (self, other))
        return self.order == other.order and all(
            len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-3, abs_tol=1e-6) for x, y in zip(a, b, strict=True))
            for a, b in zip(ours, theirs, strict=True)
        )


def expected_normalisation(source: str | Path, content: Mapping[str, Any] | None = None) -> Normalisation | None:
    """Return the normalisation weights were trained with: from their file, else by their name (`record_of`).

    Args:
        source: as `init_cfg` takes it.
        content: of the file, from `read_source`; read if None, unless `source` is an address of published weights.

    Returns:
        None if it is not known.

    Raises:
        FileNotFoundError, UsageError: see `read_source`.
    """
    content = _read(source) if content is None else content
    if (own := _of_meta(meta_of(content))) is not None:
        return own
    known = published_weights_of(source, content)
    return Normalisation(known.mean, known.std) if known else None


def published_weights_of(source: str | Path, content: Mapping[str, Any]) -> Weights | None:
    """Return the published ImageNet weights that a file holds: from the file, else by its name; None for others.

    Args:
        source: as `init_cfg` takes it.
        content: of the file, from `read_source`.
    """
    meta = meta_of(content)
    trained = meta.get(TRAINED)
    if isinstance(trained, Mapping):
        name = trained.get('checkpoint')
        return next((row for row in available() if row.checkpoint == name), None)
    return None if RECORD in meta or PIXELS in meta else record_of(source)


def trained_size(source: str | Path, content: Mapping[str, Any]) -> tuple[Weights | None, int | None]:
    """Return the published weights that a file holds, and the side in pixels of the images they were last trained on.

    Args:
        source: as `init_cfg` takes it.
        content: of the file, from `read_source`.

    Returns:
        None for what is not known.
    """
    meta, known = meta_of(content), published_weights_of(source, content)
    try:
        trained = meta[TRAINED] if TRAINED in meta else meta[RECORD]['model']['backbone']
        pixels = trained.get('pixels', trained.get('pretrain_img_size'))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError):  # files of others may hold anything there
        pixels = None
    if isinstance(pixels, int) and 0 < pixels <= PRETRAINED.high:
        return known, pixels
    return known, known.pixels if known else None


def _read(source: str | Path) -> Mapping[str, Any]:
    return {} if '://' in str(source) and record_of(source) else read_source(source)


def applied_normalisation(model: nn.Module, steps: Sequence[Mapping[str, Any]]) -> Normalisation:
    """Return how a segmentor's images are normalised.

    Args:
        model: with mmseg's or mmengine's `data_preprocessor`.
        steps: of its pipeline; `LoadMultiBandImage` and mmcv's `Normalize` are read, else images are BGR.
    """
    if (own := _of_steps(steps)) is not None:
        return own
    preprocessor = getattr(model, 'data_preprocessor', None)
    to_rgb = getattr(preprocessor, 'channel_conversion', getattr(preprocessor, '_channel_conversion', False))
    values = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    mean, std = (() if v is None else tuple(round(float(x), 4) for x in v.flatten()) for v in values)
    return Normalisation(mean, std, 'RGB' if to_rgb else 'BGR')


def test_steps(cfg: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the steps with which a config loads images for training, else for validation or test."""
    steps: Sequence[Mapping[str, Any]] = cfg.get('test_pipeline') or []
    for role in ('train', 'val', 'test'):
        dataset = (cfg.get(f'{role}_dataloader') or {}).get('dataset')
        while isinstance(dataset, Mapping):
            if dataset.get('pipeline'):
                steps = dataset['pipeline']
                return steps
            dataset = dataset.get('dataset')
    return steps


def mismatch(source: str | Path, expected: Normalisation | None, given: Normalisation) -> str | None:
    """Return one sentence that names both normalisations if they differ, else None."""
    if expected is None or expected.like(given):
        return None
    advice = 'set mean, std and bgr_to_rgb of model.data_preprocessor to what the weights were trained on'
    if OWN in (expected.order, given.order):
        advice = 'load images as its training did'
    return f'{source} was trained on {expected}, and this model gives it {given}: its features will be off; {advice}'


def mismatches(model: nn.Module, steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the sentences of `mismatch` for the weights that `init_cfg` of a segmentor and of its backbone names.

    Channels that are not colours are normalised by the statistics of each data set: weights of ImageNet, or of other
    such channels, may be fine-tuned on them without a warning.

    Raises:
        FileNotFoundError, UsageError: see `read_source`.
    """
    given = applied_normalisation(model, steps)
    for module in (model, getattr(model, 'backbone', None)):
        init_cfg = getattr(module, 'init_cfg', None)
        source = init_cfg.get('checkpoint') if isinstance(init_cfg, Mapping) else None
        if isinstance(source, str) and getattr(module, 'in_channels', 3) == 3:
            source = source.removeprefix('mmseg_volo://')
            content = _read(source)
            expected = expected_normalisation(source, content)
            if given.order == OWN and (published_weights_of(source, content) or (expected and expected.order == OWN)):
                continue
            if (sentence := mismatch(source, expected, given)) is not None:
                yield sentence


def _of_meta(meta: Mapping[str, Any]) -> Normalisation | None:
    """Read a file's normalisation, strictly numbers and one of three orders: it is written into configs."""
    record = meta.get(RECORD)
    try:
        if PIXELS in meta:
            pixels = PIXELS_TABLE.take(meta[PIXELS], PIXELS)
            return Normalisation(_numbers(pixels['mean']), _numbers(pixels['std']), pixels['order'])
        if record is None:
            return None
        if (own := _of_steps(record.get('test_pipeline', []))) is not None:
            return own
        model = record['model'].get('module', record['model'])  # inside a `tta_model`
        preprocessor = model['data_preprocessor']
        to_rgb = preprocessor.get('bgr_to_rgb') or preprocessor.get('rgb_to_bgr')
        mean, std = (_numbers(preprocessor.get(key) or ()) for key in ('mean', 'std'))
        return Normalisation(mean, std, 'RGB' if to_rgb else 'BGR')
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):  # files of others may hold anything there
        return None


def _of_steps(steps: Sequence[Mapping[str, Any]]) -> Normalisation | None:
    for step in steps:
        if step.get('type') in MULTI_BAND_STEPS:
            return Normalisation(_numbers(step['mean']), _numbers(step['std']), OWN)
        if step.get('type') == 'Normalize':
            order = 'RGB' if step.get('to_rgb', True) else 'BGR'
            return Normalisation(_numbers(step['mean']), _numbers(step['std']), order)
    return None


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in EACH_CHANNEL.take(values, 'of each channel'))
