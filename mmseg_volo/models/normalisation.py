"""How images are normalised before a network sees them: what its weights were trained with, and what it is given."""

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

PIXELS = 'pixels'  # meta[PIXELS] of converted weights that are no whole model: a Normalisation as a dict
OWN = 'file'  # order of channels that are no colours
SEEN = 'mmseg_volo.seen'  # in torch's metadata of a state dict, under '': (source, Normalisation)
TRAINED = 'trained'  # meta[TRAINED] of converted weights: `checkpoint`, the published ones that they are, and `pixels`
SAID = Table({'mean': EACH_CHANNEL, 'std': EACH_CHANNEL, 'order': words('RGB', 'BGR', OWN)})  # meta[PIXELS]


class Normalisation(NamedTuple):
    """(value - mean) / std, by channel in the network's order."""

    mean: tuple[float, ...]  # in the units of the file, of colours 0 to 255; empty if nothing is done
    std: tuple[float, ...]
    order: str = 'RGB'  # or 'BGR', or OWN

    def __str__(self) -> str:
        if {*self.mean} <= {0} and {*self.std} <= {1}:
            return f'{self.order} values from 0 to 255'
        mean, std = (', '.join(f'{value:g}' for value in values) for values in (self.mean, self.std))
        return f'{"channels as in its files" if self.order == OWN else self.order} of mean {mean} and std {std}'

    def like(self, other: Normalisation) -> bool:
        """Whether the same pixels come out, but for rounding."""
        count = max(len(self.mean), len(other.mean))
        pairs = [(a.mean or (0,) * count, a.std or (1,) * count) for a in (self, other)]
        pairs = [*zip(*pairs, strict=True)]
        return self.order == other.order and all(
            len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-3, abs_tol=1e-6) for x, y in zip(a, b, strict=True))
            for a, b in pairs
        )


def expected_normalisation(source: str | Path, content: Mapping[str, Any] | None = None) -> Normalisation | None:
    """What weights were trained with: as their file says, else by their name (`zoo.record_of`).

    Args:
        source: as `init_cfg` takes it.
        content: of the file, from `read_source`; it is read if need be, which it is not for an address where published
            weights lie.

    Returns:
        None where nobody says.

    Raises:
        FileNotFoundError, UsageError: see `read_source`.
    """
    content = _read(source) if content is None else content
    if (own := _of_meta(meta_of(content))) is not None:
        return own
    known = published_weights_of(source, content)
    return Normalisation(known.mean, known.std) if known else None


def published_weights_of(source: str | Path, content: Mapping[str, Any]) -> Weights | None:
    """Which published ImageNet weights these are: as their file says, else by their name; None if none that are known.

    Args:
        source: as `init_cfg` takes it.
        content: of the file, from `read_source`.
    """
    meta = meta_of(content)
    said = meta.get(TRAINED)
    if isinstance(said, Mapping):
        name = said.get('checkpoint')
        return next((row for row in available() if row.checkpoint == name), None)
    return None if RECORD in meta or PIXELS in meta else record_of(source)


def trained_size(source: str | Path, content: Mapping[str, Any]) -> tuple[Weights | None, int | None]:
    """Which published weights these are, and the side in pixels of the images that they were trained on last.

    Args:
        source: as `init_cfg` takes it.
        content: of the file, from `read_source`.

    Returns:
        None of what nobody says.
    """
    meta, known = meta_of(content), published_weights_of(source, content)
    try:
        said = meta[TRAINED] if TRAINED in meta else meta[RECORD]['model']['backbone']
        pixels = said.get('pixels', said.get('pretrain_img_size'))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError):  # what others may have written there
        pixels = None
    return known, pixels if isinstance(
        pixels, int
    ) and 0 < pixels <= PRETRAINED.high else known.pixels if known else None


def _read(source: str | Path) -> Mapping[str, Any]:
    return {} if '://' in str(source) and record_of(source) else read_source(source)


def applied_normalisation(model: nn.Module, steps: Sequence[Mapping[str, Any]]) -> Normalisation:
    """What a segmentor is given.

    Args:
        model: with mmseg's or mmengine's `data_preprocessor`.
        steps: of its pipeline: `LoadMultiBandImage` and mmcv's `Normalize` count; images are loaded as BGR else.
    """
    if (own := _of_steps(steps)) is not None:
        return own
    before = getattr(model, 'data_preprocessor', None)
    turned = getattr(before, 'channel_conversion', getattr(before, '_channel_conversion', False))
    values = (getattr(before, name, None) for name in ('mean', 'std'))
    numbers = (() if v is None else tuple(round(float(x), 4) for x in v.flatten()) for v in values)
    return Normalisation(*numbers, 'RGB' if turned else 'BGR')


def test_steps(cfg: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The steps by which a config loads images: of its training, else of its validation or test."""
    for role in ('train', 'val', 'test'):
        dataset = (cfg.get(f'{role}_dataloader') or {}).get('dataset')
        while isinstance(dataset, Mapping):
            if dataset.get('pipeline'):
                return dataset['pipeline']
            dataset = dataset.get('dataset')
    return cfg.get('test_pipeline') or []


def mismatch(source: str | Path, expected: Normalisation | None, given: Normalisation) -> str | None:
    """One sentence on weights that see other pixels than in their training, which names both; None if they do not."""
    if expected is None or expected.like(given):
        return None
    way_out = 'set mean, std and bgr_to_rgb of model.data_preprocessor to what the weights were trained on'
    if OWN in (expected.order, given.order):
        way_out = 'load images as its training did'
    return f'{source} was trained on {expected}, and this model gives it {given}: its features will be off; {way_out}'


def mismatches(model: nn.Module, steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The sentences of `mismatch` on what a segmentor and its backbone start from, by `init_cfg`.

    Channels that are no colours are normalised by the statistics of each data set: published ImageNet weights may start
    on them, and weights of other such channels.

    Raises:
        FileNotFoundError, UsageError: see `read_source`.
    """
    given = applied_normalisation(model, steps)
    for part in (model, getattr(model, 'backbone', None)):
        start = getattr(part, 'init_cfg', None)
        source = start.get('checkpoint') if isinstance(start, Mapping) else None
        if isinstance(source, str) and getattr(part, 'in_channels', 3) == 3:
            source = source.removeprefix('mmseg_volo://')
            content = _read(source)
            expected = expected_normalisation(source, content)
            if given.order == OWN and (published_weights_of(source, content) or (expected and expected.order == OWN)):
                continue
            if (said := mismatch(source, expected, given)) is not None:
                yield said


def _of_meta(meta: Mapping[str, Any]) -> Normalisation | None:
    """What a file says: numbers, and one of three orders. It is shown, and written into configs, which are programs."""
    record = meta.get(RECORD)
    try:
        if PIXELS in meta:
            said = SAID.take(meta[PIXELS], PIXELS)
            return Normalisation(_numbers(said['mean']), _numbers(said['std']), said['order'])
        if record is None:
            return None
        if (own := _of_steps(record.get('test_pipeline', []))) is not None:
            return own
        model = record['model'].get('module', record['model'])  # of `tta_model`
        before = model['data_preprocessor']
        turned = before.get('bgr_to_rgb') or before.get('rgb_to_bgr')
        values = (_numbers(before.get(key) or ()) for key in ('mean', 'std'))
        return Normalisation(*values, 'RGB' if turned else 'BGR')
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):  # what others may have written there
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
