"""Read the checkpoints that mmengine loads itself as plain data, by the scheme `mmseg_volo://SOURCE`.

mmengine unpickles whatever it loads (`init_cfg` of heads and of mmseg's backbones, `init_model`). This scheme returns
plain data instead, also in `init_model(CONFIG, 'mmseg_volo://model.pth')`. The normalisation of the training images is
passed on as torch's metadata of a state dict, which our segmentor compares with its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmengine.runner import CheckpointLoader
from torch import nn

from mmseg_volo.io.model_spec import dataset_meta_of
from mmseg_volo.io.weights import read_source, unwrap_state_dict
from mmseg_volo.models.backbones.base import Backbone
from mmseg_volo.models.normalisation import SEEN, expected_normalisation

SCHEME = 'mmseg_volo://'
PRETRAINED = ('Pretrained', 'mmengine.Pretrained')


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_from_mmseg_volo(filename: str, map_location: object = None) -> dict[str, Any]:
    """Return weights, classes and palette of a checkpoint, without its config text, which mmengine would execute.

    Args:
        filename: `mmseg_volo://SOURCE`, see `read_source`.
        map_location: ignored: everything is read on the CPU.

    Raises:
        FileNotFoundError, UsageError: see `read_source`.
    """
    source = filename.removeprefix(SCHEME)
    checkpoint = read_source(source)
    dataset_meta = dataset_meta_of(checkpoint, source)
    weights = OrderedDict(unwrap_state_dict(checkpoint, source))
    if expected := expected_normalisation(source, checkpoint):
        metadata = OrderedDict({'': {SEEN: (source, expected)}})
        weights._metadata = metadata  # type: ignore[attr-defined]  # as torch's state dicts have it
    return dict(state_dict=weights, meta={} if dataset_meta is None else dict(dataset_meta=dataset_meta))


def pop_whole_init_cfg(model: nn.Module) -> str | None:
    """Take the checkpoint of a whole model out of its `init_cfg`; mmengine would silently load only what matches."""
    start = getattr(model, 'init_cfg', None)
    if not isinstance(start, Mapping) or start.get('type') not in PRETRAINED or start.get('prefix'):
        return None
    model.init_cfg = None  # type: ignore[assignment]  # torch types attributes as Tensor | Module
    return str(start['checkpoint']).removeprefix(SCHEME)


def load_init_cfg_safely(model: nn.Module) -> None:
    """Read the checkpoints in `init_cfg` of a built model's modules as plain data; our backbones do so themselves."""
    for module in model.modules():
        if not isinstance(module, Backbone):
            _redirect(getattr(module, 'init_cfg', None))


def drop_init_cfg(model: nn.Module) -> None:
    """Drop checkpoints from the `init_cfg` of a built model's modules: a resume replaces all weights."""
    for module in model.modules():
        if getattr(module, 'init_cfg', None) is not None:
            module.init_cfg = _without_checkpoints(module.init_cfg)


def _without_checkpoints(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [kept for inner in value if (kept := _without_checkpoints(inner)) is not None] or None
    if not isinstance(value, dict):
        return value
    if 'checkpoint' in value:
        return None
    kept = {key: _without_checkpoints(inner) if key == 'override' else inner for key, inner in value.items()}
    return {key: inner for key, inner in kept.items() if key != 'override' or inner is not None}


def _redirect(value: object) -> None:
    if isinstance(value, dict):
        source = value.get('checkpoint')
        if isinstance(source, str) and not source.startswith(SCHEME):
            value['checkpoint'] = SCHEME + source
        for inner in value.values():  # `override` may hold further ones
            _redirect(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _redirect(inner)
