"""Weights as data: read from a file or from timm's hub without executing anything, loaded strictly."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmseg_volo.errors import UsageError

WRAPPERS = ('state_dict_ema', 'state_dict', 'model')  # what official files wrap their weights in; EMA is the published
SHOWN = 3  # keys named in a message
POSITION_TABLES = ('pos_embed', 'relative_position_bias_table')  # their size is that of the images trained on


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A .safetensors or torch file as plain data, on the CPU.

    torch files are read with `weights_only=True` and nothing is retried. One class beyond torch's own list is let
    through, `argparse.Namespace`, a plain record that training scripts (timm, sail-sg/volo) leave in their files.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is not a checkpoint, or holds more than data.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint at {path.absolute()}: give the path of a .pth or .safetensors file')
    if path.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise UsageError(f'{path} is not a readable .safetensors file ({error}): fetch it again') from None
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f'{path} holds more than weights, or is no checkpoint, and was not loaded ({reason}): '
            f'get it from its publisher as .safetensors, or as a plain state_dict'
        ) from None
    except (RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else 'unexpected end'
        raise UsageError(f'{path} is not a readable checkpoint ({reason}): fetch or save it again') from None
    if not isinstance(content, Mapping):
        raise UsageError(f'{path} holds a {type(content).__name__}, expected a dict of weights')
    return dict(content)


def unwrap(checkpoint: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The weights of a checkpoint: raw, or under `state_dict_ema` (preferred), `state_dict` or `model`, with or without
    a `module.` prefix.

    Raises:
        UsageError: no tensors are found there.
    """
    for key in WRAPPERS:
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    weights = {k.removeprefix('module.'): v for k, v in checkpoint.items() if isinstance(v, Tensor)}
    if not weights:
        raise UsageError(f'{source}: no weights found, top-level keys are {sorted(map(str, checkpoint))[:8]}')
    return weights


def read_state_dict(source: str | Path, prefix: str = '') -> dict[str, Tensor]:
    """Weights from a local file or, as `timm://NAME`, from timm's hub (its cache, its offline switch HF_HUB_OFFLINE).

    Args:
        source: path of a .pth, .pth.tar or .safetensors file, or e.g. `timm://volo_d1_224.sail_in1k`.
        prefix: keep only keys that start with it, and take it off, e.g. `backbone.`.

    Raises:
        FileNotFoundError, UsageError: see `read_checkpoint`; the timm name is unknown or cannot be fetched.
    """
    source = str(source)
    if source.startswith('timm://'):
        content: Mapping[str, Any] = _from_timm(source.removeprefix('timm://'))
    elif '://' in source:
        raise UsageError(f'weights come from a local file or timm://NAME, got {source}: download it and give its path')
    else:
        content = read_checkpoint(source)
    weights = unwrap(content, source)
    found = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    if not found:
        raise UsageError(f'{source}: no key starts with {prefix!r}, the first ones are {sorted(weights)[:SHOWN]}')
    return found


def _from_timm(name: str) -> Mapping[str, Any]:
    import timm
    from timm.models import load_state_dict_from_hf

    if not timm.is_model(name.split('.')[0]):
        near = timm.list_models(f'{name.split("_")[0]}*', pretrained=True)[:8]
        raise UsageError(f'timm://{name}: timm {timm.__version__} has no such model; it has {near or "none alike"}')
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # the model has no such tag
        config = None
    if config is None or not config.hf_hub_id:
        tags = timm.list_models(f'{name.split(".")[0]}*', pretrained=True)
        raise UsageError(f'timm://{name}: timm {timm.__version__} has no such weights; it has {tags or "none"}')
    try:
        return load_state_dict_from_hf(config.hf_hub_id, weights_only=True)
    except OSError as error:  # huggingface_hub's and requests' errors are OSErrors
        raise UsageError(
            f'timm://{name} could not be fetched from huggingface.co/{config.hf_hub_id} '
            f'({type(error).__name__}), and it is not in the cache: download model.safetensors there by hand '
            f'and give its path as checkpoint'
        ) from None


def strict_load(module: nn.Module, weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Copies `weights` into `module` when every key and every shape fits; otherwise touches nothing.

    Raises:
        UsageError: names the first missing, unknown and misshapen keys.
    """
    own = module.state_dict()
    # checkpoints older than torch 0.4.1 have no step counter of BatchNorm; it starts at zero
    missing = [k for k in own if k not in weights and not k.endswith('num_batches_tracked')]
    unknown = [k for k in weights if k not in own]
    shapes = [
        f'{k} {tuple(weights[k].shape)} for {tuple(own[k].shape)}'
        for k in own
        if k in weights and weights[k].shape != own[k].shape
    ]
    problems = []
    for what, keys in (('missing', missing), ('unknown', unknown), ('of another shape', shapes)):
        if keys:
            more = f' and {len(keys) - SHOWN} more' if len(keys) > SHOWN else ''
            problems.append(f'{len(keys)} {what}: {", ".join(keys[:SHOWN])}{more}')
    if problems:
        hint = ''
        if any(k.split(' ')[0].endswith(POSITION_TABLES) for k in shapes):
            hint = '; set pretrain_img_size to the size of the images that these weights were trained on'
        raise UsageError(f'{source} does not fit {type(module).__name__}: {"; ".join(problems)}{hint}')
    module.load_state_dict({**own, **weights})
