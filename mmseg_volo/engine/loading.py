"""mmengine's own ways to a checkpoint, led to our reader: `mmseg_volo://SOURCE`, an address beside mmengine's own.

mmengine unpickles whatever it is given (`init_cfg` of heads and of mmseg's backbones, `init_model`). An address of this
kind gives it plain data instead, in `init_model(CONFIG, 'mmseg_volo://model.pth')` too.
"""

from __future__ import annotations

from typing import Any

from mmengine.runner import CheckpointLoader
from torch import nn

from mmseg_volo.backbones.base import Backbone
from mmseg_volo.records import meta_of
from mmseg_volo.weights import read_source, unwrap

SCHEME = 'mmseg_volo://'


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
    meta = {key: value for key, value in meta_of(checkpoint).items() if key == 'dataset_meta'}
    return dict(state_dict=unwrap(checkpoint, source), meta=meta)


def starts_as_data(model: nn.Module) -> None:
    """Has every checkpoint that a built model's parts name in `init_cfg` read by us; our backbones do so themselves."""
    for part in model.modules():
        if not isinstance(part, Backbone):
            _lead_to_us(getattr(part, 'init_cfg', None))


def _lead_to_us(value: Any) -> None:
    if isinstance(value, dict):
        source = value.get('checkpoint')
        if isinstance(source, str) and not source.startswith(SCHEME):
            value['checkpoint'] = SCHEME + source
        for inner in value.values():  # `override` holds further ones
            _lead_to_us(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _lead_to_us(inner)
