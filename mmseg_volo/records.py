"""The model that a checkpoint says it is for, held to parts that read no file, ask no network and import nothing.

mmengine builds whatever a config's `type` names, `subprocess.Popen` too, and mmseg's losses unpickle the file that a
string as `class_weight` names: right for a config, which is a program, and not for a checkpoint, which is data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, Registry

from mmseg_volo.checkpoint_files import RECORD
from mmseg_volo.errors import UsageError

# mmseg's backbones and text encoders are not among them: some read files or the network when they are built
PACKAGES = ('mmseg_volo.', 'mmcv.cnn.', 'mmcv.transforms.', 'mmengine.model.', 'mmengine.utils.dl_utils.', 'torch.nn.')
PACKAGES += tuple(f'mmseg.models.{part}' for part in ('segmentors', 'decode_heads', 'necks', 'losses'))
PACKAGES += ('mmseg.models.data_preprocessor', 'mmseg.datasets.transforms.', 'mmseg.structures.')
WORD = re.compile(r'[\w+ -]*')  # no path, address or dotted name
START = ('init_cfg', 'pretrained')  # where a training began: the weights are here


def meta_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The `meta` of a checkpoint; empty where there is none."""
    meta = checkpoint.get('meta')
    return dict(meta) if isinstance(meta, Mapping) else {}


def config_of(checkpoint: Mapping[str, Any], source: str) -> Config:
    """`model` and `test_pipeline`, as `tools/train.py` and `weights convert` leave them in their files.

    Args:
        checkpoint: from `read_checkpoint`.
        source: where it came from, for the message.

    Raises:
        UsageError: it does not say, or names a part that no checkpoint may ask for.
    """
    import mmseg_volo.parts  # noqa: F401, registers what a checkpoint may ask for

    record = meta_of(checkpoint).get(RECORD)
    if not isinstance(record, Mapping) or not isinstance(record.get('model'), Mapping):
        raise UsageError(f'{source} does not say which model it is for: give its config too, load(CONFIG, {source!r})')
    model, pipeline = _without_start(record['model']), record.get('test_pipeline', [])
    for asked, registries in ((model, (MODELS, TASK_UTILS)), (pipeline, (TRANSFORMS,))):
        for what in _unknown(asked, registries):
            raise UsageError(
                f'{source} asks for {what}, which is not taken from a checkpoint: read its config, and if you trust it '
                f'as a program, give it too, load(CONFIG, {source!r})'
            )
    return Config(dict(model=model, test_pipeline=pipeline))


def published(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What of `meta` a file that is given to others needs: the model, its classes and colours; none of the training."""
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


def _unknown(value: Any, registries: tuple[Registry, ...]) -> Iterator[str]:
    """What of a config is no plain number or word, or no part of `PACKAGES`."""
    if isinstance(value, Mapping):
        if '_scope_' in value:
            yield f'_scope_={value["_scope_"]!r}'
        if 'type' in value and not _is_known(value['type'], registries):
            yield f'type={value["type"]!r}'
        for v in value.values():
            yield from _unknown(v, registries)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _unknown(v, registries)
    elif isinstance(value, str) and not WORD.fullmatch(value):
        yield repr(value)


def _is_known(name: Any, registries: tuple[Registry, ...]) -> bool:
    if not isinstance(name, str):
        return False
    for registry in registries:
        for place in (registry.children.get('mmseg'), registry):
            if place is not None:
                place.import_from_location()  # mmseg registers its own when first asked
            if place is not None and name in place.module_dict:
                return getattr(place.module_dict[name], '__module__', '').startswith(PACKAGES)
    return False
