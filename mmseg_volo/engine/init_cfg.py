"""mmengine's own ways to a checkpoint, led to our reader: `mmseg_volo://SOURCE`, an address beside mmengine's own.

mmengine unpickles whatever it is given (`init_cfg` of heads and of mmseg's backbones, `init_model`). An address of this
kind gives it plain data instead, in `init_model(CONFIG, 'mmseg_volo://model.pth')` too. How the images of its training
were normalised goes along as torch's metadata of a state dict, which our segmentor compares with what it gives.
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
def load_from_mmseg_volo(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Weights, classes and colours of a checkpoint, and no config text, which mmengine would execute.

    Args:
        filename: `mmseg_volo://SOURCE`, see `read_source`.
        map_location: mmengine's; everything is read on the CPU.

    Raises:
        FileNotFoundError, UsageError: see `read_source`.
    """
    source = filename.removeprefix(SCHEME)
    checkpoint = read_source(source)
    shown = dataset_meta_of(checkpoint, source)
    weights = OrderedDict(unwrap_state_dict(checkpoint, source))
    if expected := expected_normalisation(source, checkpoint):
        weights._metadata = OrderedDict({'': {SEEN: (source, expected)}})
    return dict(state_dict=weights, meta={} if shown is None else dict(dataset_meta=shown))


def pop_whole_init_cfg(model: nn.Module) -> str | None:
    """What a whole model starts from by its `init_cfg`, which it then has no more; mmengine would load parts unsaid."""
    start = getattr(model, 'init_cfg', None)
    if not isinstance(start, Mapping) or start.get('type') not in PRETRAINED or start.get('prefix'):
        return None
    model.init_cfg = None
    return start['checkpoint'].removeprefix(SCHEME)


def load_init_cfg_safely(model: nn.Module) -> None:
    """Has every checkpoint that a built model's parts name in `init_cfg` read by us; our backbones do so themselves."""
    for part in model.modules():
        if not isinstance(part, Backbone):
            _redirect(getattr(part, 'init_cfg', None))


def drop_init_cfg(model: nn.Module) -> None:
    """Takes out of the `init_cfg` of a built model's parts what names a checkpoint: another one holds all weights."""
    for part in model.modules():
        if getattr(part, 'init_cfg', None) is not None:
            part.init_cfg = _without_checkpoints(part.init_cfg)


def _without_checkpoints(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        kept = [kept for inner in value if (kept := _without_checkpoints(inner)) is not None]
        return kept or None
    if not isinstance(value, dict):
        return value
    if 'checkpoint' in value:
        return None
    found = {key: _without_checkpoints(inner) if key == 'override' else inner for key, inner in value.items()}
    return {key: inner for key, inner in found.items() if key != 'override' or inner is not None}


def _redirect(value: Any) -> None:
    if isinstance(value, dict):
        source = value.get('checkpoint')
        if isinstance(source, str) and not source.startswith(SCHEME):
            value['checkpoint'] = SCHEME + source
        for inner in value.values():  # `override` holds further ones
            _redirect(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _redirect(inner)
