"""What a training on a folder starts from, fetched before any work is done, and what the table says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmseg_volo.config import load_config
from mmseg_volo.errors import UsageError
from mmseg_volo.folders import plan
from mmseg_volo.weights import fetch_starts


def starting_point(model: str, given: str | None) -> plan.Start | None:
    """What a training starts from; random weights only where `given` says so.

    Args:
        model: `--model`: a backbone's name or a config.
        given: `--weights`, see `plan.starting_weights`; of a config None or 'none'.

    Returns:
        None where a config says it.

    Raises:
        FileNotFoundError, UsageError: it cannot be had.
    """
    if not plan.is_shipped(model):
        return plan.starting_weights(model, given)
    if given not in (None, 'none'):
        raise UsageError(
            f"--weights {given} is for a backbone: {model} is a config, which names its own; it takes 'none' only"
        )
    if given is None:
        fetch_starts(load_config(model).model, '--weights none')
    return None


def weight_words(model: str, start: plan.Start | None, cfg: Mapping[str, Any]) -> str:
    """What the fitted config of a training starts from, in a few words."""
    source = (cfg['model']['backbone'].get('init_cfg') or {}).get('checkpoint')
    if start:
        return start.note
    return f'{source}, as {model} says' if source else 'none: from scratch'


def pixel_words(cfg: Mapping[str, Any]) -> str:
    """How the fitted config of a training normalises images, in a few words."""
    before, backbone = cfg['model']['data_preprocessor'], cfg['model']['backbone']
    if 'mean' not in before:
        return 'each channel by its own mean and standard deviation in these images'
    mean, std = (' '.join(f'{value:g}' for value in before[key]) for key in ('mean', 'std'))
    return f'RGB, mean {mean}, std {std}{", as these weights expect" if backbone.get("init_cfg") else ""}'
