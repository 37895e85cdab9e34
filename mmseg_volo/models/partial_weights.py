"""Initialise a segmentor from another one's checkpoint: the whole backbone, and those tensors of the heads that fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import RECORD, one_line
from mmseg_volo.io.model_spec import meta_of
from mmseg_volo.io.weights import MAX_KEYS_SHOWN, WHOLE, check_fit, select_weights
from mmseg_volo.models.backbones.base import Backbone

CLASSIFIER = '.conv_seg'  # end of the name of mmseg's last layer, whose rows are classes


def class_names(meta: Any) -> list[str]:
    """Return the classes that the `dataset_meta` of a checkpoint or data set lists; empty if there are none."""
    classes = meta.get('classes') if isinstance(meta, Mapping) else None
    return [*map(str, classes)] if isinstance(classes, (list, tuple)) else []


def backbone_words(model: Any) -> str:
    """Describe the backbone of a model's config, e.g. 'CAFormer s18'; empty if the config does not name it."""
    backbone = model.get('backbone') if isinstance(model, Mapping) else None
    if not isinstance(backbone, Mapping) or not isinstance(backbone.get('type'), str):
        return ''
    sizes = (backbone.get(key) for key in ('arch', 'depth'))
    return one_line(' '.join([backbone['type'], *(str(size) for size in sizes if isinstance(size, str | int))]))


def partial_state(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    checkpoint: Mapping[str, Any],
    source: str,
    classes: Sequence[str] = (),
    words: str = '',
) -> tuple[dict[str, Tensor], str]:
    """Merge another segmentor's weights into the state of a model.

    The whole backbone must fit. Of the other tensors those that fit are taken; of a classifier of other classes, the
    rows of classes with the same names.

    Args:
        model: with a `backbone`.
        weights: of the checkpoint.
        checkpoint: the file's content, for its classes and its config.
        source: its name, for messages.
        classes: of the model.
        words: the model's backbone, from `backbone_words`.

    Returns:
        The whole state, and one sentence on what is loaded and what is not.

    Raises:
        UsageError: the backbone does not fit.
    """
    own = model.state_dict()
    theirs = {**weights, **_backbone(model, weights, checkpoint, source, words)}
    their_classes = class_names(meta_of(checkpoint).get('dataset_meta'))
    state, skipped, count = dict(own), [], 0
    for key in own.keys() & theirs.keys():
        layer = key.rpartition('.')[0]
        if layer.endswith(CLASSIFIER) and (rows := _rows(own[key], theirs[key], their_classes, classes)) is not None:
            state[key], note = rows
            skipped.append(f'{layer} ({note})')
        elif theirs[key].shape == own[key].shape:
            state[key], count = theirs[key], count + 1
        elif layer.endswith(CLASSIFIER) and theirs[key].ndim == own[key].ndim:
            skipped.append(f'{layer} ({len(theirs[key])} classes there, {len(own[key])} here)')
        else:
            skipped.append(f'{key} ({tuple(theirs[key].shape)} there, {tuple(own[key].shape)} here)')
    skipped = sorted({*skipped})
    skipped += _counts([k for k in own if k not in theirs and not k.endswith('num_batches_tracked')], 'of this model')
    skipped += _counts([k for k in theirs if k not in own], 'of the checkpoint')
    more = f', and {len(skipped) - 2 * MAX_KEYS_SHOWN} more' if len(skipped) > 2 * MAX_KEYS_SHOWN else ''
    not_loaded = f'; not loaded: {", ".join(skipped[: 2 * MAX_KEYS_SHOWN])}{more}' if skipped else ''
    return state, f'weights: {count} of {len(own)} tensors from {source}{not_loaded}'


def _backbone(
    model: nn.Module, weights: Mapping[str, Tensor], checkpoint: Mapping[str, Any], source: str, words: str
) -> dict[str, Tensor]:
    """Return the backbone's weights under the model's keys."""
    if not any(key.startswith(WHOLE) for key in weights):
        raise UsageError(
            f'{source} holds no segmentor, as none of its keys starts with {WHOLE!r}: if these are weights of a '
            f"backbone, set model.backbone.init_cfg=dict(type='Pretrained', checkpoint={source!r})"
        )
    backbone = model.get_submodule('backbone')
    selected = select_weights(weights, source, WHOLE)
    record = meta_of(checkpoint).get(RECORD)
    theirs = backbone_words(record.get('model') if isinstance(record, Mapping) else None)
    if ' ' in theirs and ' ' in words and theirs != words:  # both with a size
        raise UsageError(f'{source} is for {theirs}, and this model has {words}: the weights do not fit')
    if isinstance(backbone, Backbone):
        selected = backbone.converted(selected)
    check_fit(backbone, selected, source)
    return {f'{WHOLE}{key}': value for key, value in selected.items()}


def _rows(own: Tensor, theirs: Tensor, there: Sequence[str], here: Sequence[str]) -> tuple[Tensor, str] | None:
    """Return a classifier's weights with the rows of common classes taken over, and a note.

    Args:
        own: (classes here, ...).
        theirs: (classes there, ...).
        there, here: names of the classes.

    Returns:
        None if the classes are the same, or the rows of a tensor are not the classes.
    """
    shapes = (len(there), *own.shape[1:]), (len(here), *own.shape[1:])
    if [*there] == [*here] or (theirs.shape, own.shape) != shapes:
        return None
    known = [name for name in here if name in there]
    rows = own.clone()
    for name in known:
        rows[here.index(name)] = theirs[there.index(name)]
    shown = ', '.join(map(one_line, known[:MAX_KEYS_SHOWN])) + (
        f' and {len(known) - MAX_KEYS_SHOWN} more' if len(known) > MAX_KEYS_SHOWN else ''
    )
    counts = f'{len(there)} classes there, {len(here)}{" others" if len(there) == len(here) else ""} here'
    return rows, f'{counts}, but for the rows of {shown}' if known else counts


def _counts(keys: Sequence[str], whose: str) -> list[str]:
    """Describe how many tensors there are of each module of a model, e.g. 'decode_head (8 tensors of this model)'."""
    counts = Counter(key.partition('.')[0] for key in keys)
    return [f'{one_line(module)} ({count} tensors {whose})' for module, count in counts.items()]
