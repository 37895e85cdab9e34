"""Read weights from a file, the network or timm's hub without executing anything, and load them strictly."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import one_line, read_checkpoint
from mmseg_volo.io.download import HUB_HOST, fetch

WRAPPERS = ('state_dict_ema', 'state_dict', 'model')  # keys of official files; of two, the EMA weights are published
RECORD = 'mmseg_volo'  # meta[RECORD] holds what inference needs, as data: no config text is ever executed
WHOLE = 'backbone.'  # prefix of the backbone's keys in a whole model
MAX_KEYS_SHOWN = 3  # keys listed in a message
NUMBERS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
COUNTS = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, *SIGNED)
REPEATED = 1 << 24  # largest nominal size in bytes of a tensor that repeats fewer stored bytes
# their size depends on that of the training images
POSITION_TABLES = ('pos_embed', 'relative_position_bias_table', 'random_matrix')
SIZE_HINT = 'set pretrain_img_size to the size of the images that these weights were trained on'


def unwrap_state_dict(checkpoint: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, without a `module.` prefix. They may be the checkpoint itself, or its
    `state_dict_ema` (preferred), `state_dict` or `model`.

    Raises:
        UsageError: it holds no tensors, or some that no model can load.
    """
    for key in WRAPPERS:
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    weights = {
        k.removeprefix('module.'): v for k, v in checkpoint.items() if isinstance(k, str) and isinstance(v, Tensor)
    }
    if not weights:
        raise UsageError(f'{source}: no weights found, top-level keys are {sorted(map(str, checkpoint))[:8]}')
    for key, value in weights.items():
        if kind := _unsupported(value):
            raise UsageError(
                f'{source}: {one_line(key)} is {kind}, but models load dense tensors of real numbers: have it saved '
                f'as float32'
            )
    return weights


def _unsupported(value: Tensor) -> str | None:
    """Describe a tensor that no model can load as it is."""
    if value.is_meta:
        return 'on the meta device, without values'
    if value.is_nested or value.is_quantized or value.layout != torch.strided:
        kind = 'nested' if value.is_nested else 'quantised' if value.is_quantized else 'sparse'
        return f'a {kind} tensor'
    if value.dtype not in (*NUMBERS, *COUNTS):
        return f'of {str(value.dtype).removeprefix("torch.")}'
    if value.nbytes > max(value.untyped_storage().nbytes(), REPEATED):
        return f'{value.nbytes / 1e6:.0f} MB of few values, repeated'
    return None


def whole_prefix(weights: Mapping[str, Tensor]) -> str:
    """Return the prefix of the backbone's keys: `WHOLE` in the weights of a whole model, else empty."""
    return WHOLE if any(key.startswith(WHOLE) for key in weights) else ''


def read_source(source: str | Path) -> dict[str, Any]:
    """Read a checkpoint from a local file, the network (`download.py`: caches, offline switch, mirror) or timm's hub.

    Args:
        source: path of a .pth, .pth.tar or .safetensors file, https://HOST/PATH of one, or
            e.g. `timm://volo_d1_224.sail_in1k`.

    Raises:
        FileNotFoundError, UsageError: see `read_checkpoint` and `local_file`.
    """
    path = local_file(source)
    try:
        return read_checkpoint(path)
    except UsageError as error:
        if '://' not in str(source):
            raise
        raise UsageError(f'{error}; remove {path.resolve()} to fetch {source} again') from None


def read_state_dict(source: str | Path, prefix: str = '') -> dict[str, Tensor]:
    """Read the weights of a source, see `read_source` and `select_weights`."""
    return select_weights(read_source(source), source, prefix)


def read_backbone(source: str | Path, prefix: str = '') -> dict[str, Tensor]:
    """Read the weights of a backbone: those under `prefix`, by default under `WHOLE` if the source is a whole model."""
    checkpoint = read_source(source)
    return select_weights(checkpoint, source, prefix or whole_prefix(unwrap_state_dict(checkpoint, str(source))))


def select_weights(checkpoint: Mapping[str, Any], source: str | Path, prefix: str = '') -> dict[str, Tensor]:
    """Return the weights of a checkpoint, or those under a prefix.

    Args:
        checkpoint: see `unwrap_state_dict`.
        source: its path or address, for the message.
        prefix: keep only keys that start with it, and strip it, e.g. `backbone.`.

    Raises:
        UsageError: there are none.
    """
    weights = unwrap_state_dict(checkpoint, str(source))
    selected = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    if not selected:
        raise UsageError(
            f'{source}: no key starts with {prefix!r}, the first ones are {sorted(weights)[:MAX_KEYS_SHOWN]}'
        )
    return selected


def local_file(source: str | Path) -> Path:
    """Return the file of a source, in the notation of `init_cfg`; downloads it if it is not local.

    Raises:
        UsageError: there is no such source, or it cannot be fetched.
    """
    url = url_of(source)
    return fetch(url) if url else Path(os.path.expanduser(source))


def url_of(source: str | Path) -> str | None:
    """Return the URL of a source, None for a local file.

    Raises:
        UsageError: timm has no weights of that name.
    """
    source = str(source)
    if source.startswith('timm://'):
        repository, _, revision = _timm_repository(source.removeprefix('timm://')).partition('@')
        return f'{HUB_HOST}/{repository}/resolve/{revision or "main"}/model.safetensors'
    return source if '://' in source else None


def _timm_repository(name: str) -> str:
    import timm

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
    return str(config.hf_hub_id)


def pretrained_sources(model: Mapping[str, Any]) -> list[str]:
    """List the sources that the `init_cfg` of a model's config and of its components name."""
    return [source for _, source in _init_sources(model, 'model')]


def _init_sources(value: Any, key: str, inside: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (dotted key of the outermost `init_cfg`, its source); `inside` one, `checkpoint` names the file."""
    for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        if inside and name == 'checkpoint' and isinstance(inner, str):
            yield key, inner
        elif isinstance(inner, (Mapping, list, tuple)):
            yield from _init_sources(inner, key if inside else f'{key}.{name}', inside or name == 'init_cfg')


def fetch_pretrained(model: Mapping[str, Any], way_out: str = '--cfg-options {key}=None') -> None:
    """Download the weights that a model's config starts from, so that failure comes before any other work.

    Args:
        model: of a config.
        way_out: how to start the backbone from random weights, for the message; `{key}` stands for its `init_cfg`.

    Raises:
        FileNotFoundError, UsageError: they are not available.
    """
    for key, source in _init_sources(model, 'model'):
        try:
            ensure_local(source)
        except (FileNotFoundError, UsageError) as error:
            remedy = f'--cfg-options {key}=None starts this component from random weights'
            if key == 'model.backbone.init_cfg':
                remedy = f'{way_out.format(key=key)} trains from random weights, which takes more images and time'
            elif '{key}' not in way_out:
                remedy = f'without {key}, the config starts this component from random weights'
            raise type(error)(f'the model starts from {source}: {error}; {remedy}') from None


def ensure_local(source: str | Path) -> Path:
    """Return the file of a source, downloaded if necessary, without reading it.

    Raises:
        FileNotFoundError, UsageError: it is not available.
    """
    path = local_file(str(source).removeprefix('mmseg_volo://'))
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint at {path.absolute()}')
    return path


def non_finite_names(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that contain NaN or infinity."""
    return [k for k, v in weights.items() if v.is_floating_point() and not v.is_meta and not v.isfinite().all()]


def count_positions(key: str, table: Tensor) -> int | None:
    """Count the positions along a side of a table of `POSITION_TABLES`; None for other weights.

    Args:
        key: its name.
        table: (1, side, side, C) or (1, 1 + side^2, C) embeddings, ((2 side - 1)^2, heads) biases of offsets, or a
            matrix (side^2, side^2).
    """
    if key.endswith('pos_embed') and table.ndim in (3, 4):
        return table.shape[1] if table.ndim == 4 else math.isqrt(max(0, table.shape[1] - 1))
    if key.endswith('relative_position_bias_table') and table.ndim == 2:
        return (math.isqrt(len(table)) + 1) // 2
    return math.isqrt(len(table)) if key.endswith('random_matrix') and table.ndim == 2 else None


def strict_load(module: nn.Module, weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy `weights` into `module` if every key and shape fits and all values are finite; else change nothing.

    Raises:
        UsageError: see `check_fit`.
    """
    check_fit(module, weights, source)
    module.load_state_dict({**module.state_dict(), **weights})


def check_fit(module: nn.Module, weights: Mapping[str, Tensor], source: str | Path, hint: str = SIZE_HINT) -> None:
    """Check that every key and shape of `weights` fits a module, and all values are finite.

    Args:
        module: may be on the meta device.
        hint: what to do if position tables have another size.

    Raises:
        UsageError: lists the first missing, unknown and misshapen keys, or those that are not finite.
    """
    own = module.state_dict()
    # checkpoints older than torch 0.4.1 lack BatchNorm's step counter; it starts at zero
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
            more = f' and {len(keys) - MAX_KEYS_SHOWN} more' if len(keys) > MAX_KEYS_SHOWN else ''
            problems.append(f'{len(keys)} {what}: {", ".join(map(one_line, keys[:MAX_KEYS_SHOWN]))}{more}')
    if problems:
        tables = any(k.split(' ')[0].endswith(POSITION_TABLES) for k in shapes)
        more = f'; {hint}' if hint and tables else ''
        raise UsageError(f'{source} does not fit {type(module).__name__}: {"; ".join(problems)}{more}')
    if names := non_finite_names(weights):
        raise UsageError(
            f'{source} has weights that are NaN or infinite: {", ".join(map(one_line, names[:MAX_KEYS_SHOWN]))}; its '
            f'training diverged before it was saved: take an earlier checkpoint'
        )
