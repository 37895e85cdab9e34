"""A segmentor that starts from another one's checkpoint: its backbone, and what of its heads fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import RECORD, one_line
from mmseg_volo.io.model_spec import meta_of
from mmseg_volo.io.weights import MAX_KEYS_SHOWN, WHOLE, check_fit, select_weights
from mmseg_volo.models.backbones.base import Backbone

CLASSIFIER = '.conv_seg'  # ends the name of the layer whose rows are classes, in mmseg's heads


def class_names(meta: Any) -> list[str]:
    """The classes that a checkpoint's or data set's `dataset_meta` names; none where it does not."""
    classes = meta.get('classes') if isinstance(meta, Mapping) else None
    return [*map(str, classes)] if isinstance(classes, (list, tuple)) else []


def backbone_words(model: Any) -> str:
    """A model's backbone by its config, e.g. 'CAFormer s18'; empty where it does not say."""
    part = model.get('backbone') if isinstance(model, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(part.get('type'), str):
        return ''
    sizes = (part.get(key) for key in ('arch', 'depth'))
    return one_line(' '.join([part['type'], *(str(size) for size in sizes if isinstance(size, str | int))]))


def partial_state(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    checkpoint: Mapping[str, Any],
    source: str,
    classes: Sequence[str] = (),
    words: str = '',
) -> tuple[dict[str, Tensor], str]:
    """The state of a segmentor that starts from another one's weights.

    The backbone must fit whole. Of the rest is taken what fits; of a classifier of other classes the rows of those with
    the same names.

    Args:
        model: with a `backbone`.
        weights: of the checkpoint.
        checkpoint: where they are from, for its classes and its record.
        source: its name, for messages.
        classes: of the model.
        words: its backbone in words.

    Returns:
        The whole state, and one sentence on what is loaded and what is not.

    Raises:
        UsageError: the backbone does not fit.
    """
    own = model.state_dict()
    given = {**weights, **_backbone(model, weights, checkpoint, source, words)}
    there = class_names(meta_of(checkpoint).get('dataset_meta'))
    state, left, count = dict(own), [], 0
    for key in own.keys() & given.keys():
        layer = key.rpartition('.')[0]
        if layer.endswith(CLASSIFIER) and (rows := _rows(own[key], given[key], there, classes)) is not None:
            state[key], note = rows
            left.append(f'{layer} ({note})')
        elif given[key].shape == own[key].shape:
            state[key], count = given[key], count + 1
        elif layer.endswith(CLASSIFIER) and given[key].ndim == own[key].ndim:
            left.append(f'{layer} ({len(given[key])} classes there, {len(own[key])} here)')
        else:
            left.append(f'{key} ({tuple(given[key].shape)} there, {tuple(own[key].shape)} here)')
    left = sorted({*left})
    left += _by_part([k for k in own if k not in given and not k.endswith('num_batches_tracked')], 'of this model')
    left += _by_part([k for k in given if k not in own], 'of the checkpoint')
    more = f', and {len(left) - 2 * MAX_KEYS_SHOWN} more' if len(left) > 2 * MAX_KEYS_SHOWN else ''
    not_loaded = f'; not loaded: {", ".join(left[: 2 * MAX_KEYS_SHOWN])}{more}' if left else ''
    return state, f'weights: {count} of {len(own)} tensors from {source}{not_loaded}'


def _backbone(
    model: nn.Module, weights: Mapping[str, Tensor], checkpoint: Mapping[str, Any], source: str, words: str
) -> dict[str, Tensor]:
    """The backbone's weights under the model's keys."""
    if not any(key.startswith(WHOLE) for key in weights):
        raise UsageError(
            f'{source} holds no segmentor, as none of its keys begins with {WHOLE!r}: if these are weights of a '
            f"backbone, name them there, model.backbone.init_cfg=dict(type='Pretrained', checkpoint={source!r})"
        )
    found = select_weights(weights, source, WHOLE)
    record = meta_of(checkpoint).get(RECORD)
    theirs = backbone_words(record.get('model') if isinstance(record, Mapping) else None)
    if ' ' in theirs and ' ' in words and theirs != words:  # both by name
        raise UsageError(f'{source} is for {theirs}, and this model has {words}: one does not start from the other')
    if isinstance(model.backbone, Backbone):
        found = model.backbone.converted(found)
    check_fit(model.backbone, found, source)
    return {f'{WHOLE}{key}': value for key, value in found.items()}


def _rows(own: Tensor, given: Tensor, there: Sequence[str], here: Sequence[str]) -> tuple[Tensor, str] | None:
    """A classifier's weights with the rows of the classes that both know, and a note; None where the classes are the
    same, or rows are none of them.

    Args:
        own: (classes here, ...).
        given: (classes there, ...).
    """
    shapes = (len(there), *own.shape[1:]), (len(here), *own.shape[1:])
    if [*there] == [*here] or (given.shape, own.shape) != shapes:
        return None
    known = [name for name in here if name in there]
    rows = own.clone()
    for name in known:
        rows[here.index(name)] = given[there.index(name)]
    shown = ', '.join(map(one_line, known[:MAX_KEYS_SHOWN])) + (
        f' and {len(known) - MAX_KEYS_SHOWN} more' if len(known) > MAX_KEYS_SHOWN else ''
    )
    counts = f'{len(there)} classes there, {len(here)}{" others" if len(there) == len(here) else ""} here'
    return rows, f'{counts}, but for the rows of {shown}' if known else counts


def _by_part(keys: Sequence[str], whose: str) -> list[str]:
    """In words, how many tensors of which part of a model."""
    parts: dict[str, int] = {}
    for key in keys:
        part = key.partition('.')[0]
        parts[part] = parts.get(part, 0) + 1
    return [f'{one_line(part)} ({count} tensors {whose})' for part, count in parts.items()]
