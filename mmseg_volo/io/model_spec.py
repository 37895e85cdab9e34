"""Read the model that a checkpoint describes, and check it against the allow-list `allowed`: components and arguments.

mmengine builds whatever a config's `type` names, even `subprocess.Popen`, and mmseg's losses unpickle the file that a
string as `class_weight` names: acceptable for a config, which is a program, but not for a checkpoint, which is data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmseg_volo.errors import UsageError
from mmseg_volo.io.allowed.kinds import MOST, START, Integer, Name, NotTaken, Several
from mmseg_volo.io.checkpoint import RECORD
from mmseg_volo.io.steps import MULTI_BAND_STEPS

CLASSES = Several(Name(r'[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{0,200}'), most=MOST)  # no control characters
LOADING = ('LoadImageFromFile', 'LoadRGBImage', 'LoadImageFromNDArray', *MULTI_BAND_STEPS)
PACKING = 'PackSegInputs'
NEEDED = frozenset(('ori_shape', 'img_shape'))  # keys that the packing step must keep
SHOWN = 4  # steps in a message
PALETTE = Several(Several(Integer(0, 255), exactly=3), most=MOST)


def meta_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `meta` of a checkpoint; empty if it has none."""
    meta = checkpoint.get('meta')
    return dict(meta) if isinstance(meta, Mapping) else {}


def config_of(checkpoint: Mapping[str, Any], source: str) -> Config:
    """Return `model` and `test_pipeline`, which `mmseg-volo train` and `weights convert` write into a checkpoint.

    Args:
        checkpoint: from `read_checkpoint`.
        source: its path or address, for the message.

    Raises:
        UsageError: it describes no model, or names something that is not on the allow-list.
    """
    from mmseg_volo.io.allowed.types import MODEL, PIPELINE

    record = meta_of(checkpoint).get(RECORD)
    if not isinstance(record, Mapping) or not isinstance(record.get('model'), Mapping):
        raise UsageError(f'{source} does not say which model it is for: give its config too, load(CONFIG, {source!r})')
    try:
        model = MODEL.take(record['model'], 'model')
        pipeline = PIPELINE.take(record.get('test_pipeline', []), 'test_pipeline')
    except NotTaken as error:
        raise UsageError(
            f'{source} asks for {error}, which is not on the allow-list for checkpoints: read its config, and if you '
            f'trust it as a program, give it too, load(CONFIG, {source!r})'
        ) from None
    if pipeline and (problem := _wrong_steps(pipeline)):
        raise UsageError(
            f'{source} has a test pipeline that cannot work, {problem}: give the config of its training too, '
            f'load(CONFIG, {source!r})'
        )
    return Config(dict(model=model, test_pipeline=pipeline) if pipeline else dict(model=model))


def _wrong_steps(steps: Sequence[Mapping[str, Any]]) -> str | None:
    """Describe an error in the order of the steps, or in the keys that the last one keeps."""
    kinds = [step['type'] for step in steps]
    if kinds[0] not in LOADING or any(kind in LOADING for kind in kinds[1:]):
        return f'as its first step, and no other, must load an image; it has {", ".join(kinds[:SHOWN])}'
    if kinds[-1] != PACKING or PACKING in kinds[:-1]:
        return f'as its last step, and no other, must be {PACKING}; it has {", ".join(kinds[-SHOWN:])}'
    if missing := NEEDED.difference(steps[-1].get('meta_keys', NEEDED)):
        return f'as {PACKING} leaves out {", ".join(sorted(missing))}'
    return None


def dataset_meta_of(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any] | None:
    """Return the `classes` and `palette` of a checkpoint, ignoring the rest of its `dataset_meta`; None if it has none.

    Args:
        checkpoint: from `read_checkpoint`.
        source: its path or address, for the message.

    Raises:
        UsageError: they are not names and colours, one of each per class.
    """
    dataset_meta = meta_of(checkpoint).get('dataset_meta')
    if not dataset_meta:
        return None
    if not isinstance(dataset_meta, Mapping) or not {'classes', 'palette'} <= {*dataset_meta}:
        raise UsageError(f'{source}: its dataset_meta has no classes and palette: give a config, load(CONFIG, WEIGHTS)')
    try:
        classes = CLASSES.take(dataset_meta['classes'], 'classes')
        palette = PALETTE.take(dataset_meta['palette'], 'palette')
    except NotTaken as error:
        raise UsageError(
            f'{source}: classes are names without control characters, and the palette has three numbers from 0 to 255 '
            f'for each, got {error}'
        ) from None
    if len(classes) != len(palette):
        raise UsageError(f'{source} names {len(classes)} classes but {len(palette)} colours')
    return dict(classes=classes, palette=palette)


def published(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `meta` that a published file needs: the model, its classes and colours; not the training."""
    meta = meta_of(checkpoint)
    record, shown = meta.get(RECORD), meta.get('dataset_meta')
    if not isinstance(record, Mapping) or not isinstance(shown, Mapping):
        return {}
    dataset_meta = {key: shown[key] for key in ('classes', 'palette') if key in shown}
    return {RECORD: _without_start(record), 'dataset_meta': dataset_meta}


def _without_start(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_start(v) for key, v in value.items() if key not in START}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_start(v) for v in value)
    return value
