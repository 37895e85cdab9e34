"""Implement `mmseg-volo weights list|fetch|convert|check`, for ImageNet weights and checkpoints."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from mmseg_volo.config import load_config
from mmseg_volo.errors import UsageError
from mmseg_volo.inference.api import load
from mmseg_volo.io.checkpoint import RECORD, one_line, read_checkpoint, save_safetensors
from mmseg_volo.io.download import cached_path, find_cached
from mmseg_volo.io.model_spec import meta_of, published
from mmseg_volo.io.weights import (
    MAX_KEYS_SHOWN,
    local_file,
    non_finite_names,
    pretrained_sources,
    read_source,
    read_state_dict,
    select_weights,
    strict_load,
    unwrap_state_dict,
    url_of,
    whole_prefix,
)
from mmseg_volo.models.backbones.base import Backbone
from mmseg_volo.models.normalisation import PIXELS, TRAINED, expected_normalisation, trained_size
from mmseg_volo.models.pretrained import ARCHS, available


def list_weights(args: argparse.Namespace) -> None:
    """Print a line per published file.

    It shows megabytes if the file is in the cache, image size, backbone, normalisation (ImageNet's mean and standard
    deviation, or MEAN/STD of values from 0 to 255), licence, and the name for `init_cfg`.

    Raises:
        UsageError: no file matches the pattern.
    """
    pattern = args.pattern.lower()
    if not {'*', '?', '['} & {*pattern}:
        pattern = f'*{pattern}*'
    rows = [w for w in available() if any(fnmatch(t.lower(), pattern) for t in (w.checkpoint, f'{w.family} {w.arch}'))]
    if not rows:
        raise UsageError(f'no published weights match {args.pattern!r}: without a pattern, `list` prints all')
    print(f'{"MB here":>7}  {"pixels":>6}  {"type":14}  {"arch":12}  {"normalised":11}  {"licence":18}  checkpoint')
    for row in rows:
        url = url_of(row.checkpoint)
        path = find_cached(url) if url else None
        here = f'{path.stat().st_size / 1e6:.1f}' if path else '-'
        means = '/'.join(f'{value:g}' for value in (row.mean[0], row.std[0]))
        normalised = means if len({*row.mean}) == 1 else 'ImageNet'
        print(
            f'{here:>7}  {row.pixels:>6}  {row.family:14}  {row.arch:12}  {normalised:11}  {row.licence:18}  '
            f'{row.checkpoint}'
        )


def fetch_weights(args: argparse.Namespace) -> None:
    """Download the weights that are not in the cache, and print a path per name.

    Raises:
        FileNotFoundError, UsageError: a name is unknown, or its file cannot be fetched.
    """
    sources = {source: name for name in args.names for source in _sources(name)}
    for source in sources:  # reports a wrong name before the first download
        if url := url_of(source):
            cached_path(url)
    for source, name in sources.items():
        path = local_file(source)
        if not path.is_file():
            raise FileNotFoundError(f'no checkpoint at {path.absolute()}, which {name} names')
        print(path)


def _sources(name: str) -> list[str]:
    if '://' in name:
        return [name]
    import timm

    if timm.is_model(name.split('.')[0]) or ('.' in Path(name).name and not name.endswith('.py')):
        return [f'timm://{name}']
    if not (sources := pretrained_sources(load_config(name).model)):
        raise UsageError(f'{name} starts from random weights: there is nothing to fetch')
    return sources


def convert(args: argparse.Namespace) -> None:
    """Write weights as .safetensors, under their own keys or under those of the backbone that they fit.

    The file describes its model if the source is a checkpoint of ours, so that `mmseg_volo.load` takes it alone; that
    of a backbone describes the normalisation of its training images, where it is known.

    Raises:
        FileNotFoundError, UsageError: the source cannot be read or does not fit, or the target cannot be written.
    """
    target = Path(os.path.expanduser(args.target))
    if target.suffix != '.safetensors':
        raise UsageError(f'expected a target that ends in .safetensors, got {args.target}')
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f'there is no folder {target.absolute().parent}: create it first')
    if target.exists() and not args.force:
        raise UsageError(f'{target.absolute()} exists: choose another name, or replace it with --force')
    wanted = _backbone_config(args)
    content = _read_trusted(args.source) if args.trust_pickle else read_source(args.source)
    prefix = args.prefix or (whole_prefix(unwrap_state_dict(content, args.source)) if wanted else '')
    weights = select_weights(content, args.source, prefix)
    metadata = {'source': args.source if '://' in args.source else Path(args.source).name}
    if wanted:
        weights = _own_keys(wanted, weights, args.source)
        metadata |= {'type': wanted['type'], 'arch': str(wanted['arch'])}
    whole = {} if wanted or args.prefix else published(content)
    save_safetensors(weights, target, metadata, whole or _facts(args.source, content))
    print(f'{target}: {_size(weights)}{", with the description of their model" if whole else ""}')


def _facts(source: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the images that weights were trained on, for the metadata of a file."""
    expected, (published_weights, pixels) = expected_normalisation(source, content), trained_size(source, content)
    normalisation = {PIXELS: expected._asdict()} if expected else {}
    trained = {'checkpoint': published_weights and published_weights.checkpoint, 'pixels': pixels}
    trained = {key: value for key, value in trained.items() if value}
    return {**normalisation, TRAINED: trained} if trained else normalisation


def _read_trusted(source: str) -> dict[str, Any]:
    if url_of(source):
        raise UsageError(
            f'--trust-pickle takes a local file, got {source}: download it, and make sure that you trust it'
        )
    print(f'--trust-pickle: any code in {source} runs now', file=sys.stderr)
    return read_checkpoint(source, trust_pickle=True)


def _own_keys(wanted: dict[str, Any], weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    backbone = _build(wanted)
    backbone.load_pretrained(weights, source)
    trained_norms = any(k.startswith('out_norms.') for k in weights)  # otherwise they are our initial values
    return {k: v for k, v in backbone.state_dict().items() if trained_norms or not k.startswith('out_norms.')}


def check(args: argparse.Namespace) -> None:
    """Check that weights are finite and that every key fits the model.

    Raises:
        FileNotFoundError, UsageError: they cannot be read, are not finite or do not fit; names the first wrong keys.
    """
    wanted = _backbone_config(args)
    weights = read_state_dict(args.source, args.prefix)
    if bad := non_finite_names(weights):
        shown = ', '.join(map(one_line, bad[:MAX_KEYS_SHOWN]))
        raise UsageError(f'{args.source}: {len(bad)} tensors contain NaN or infinity: {shown}')
    if wanted is None:
        if RECORD not in meta_of(read_source(args.source)):
            raise UsageError(f'{args.source} does not describe its model: give a config, or --type and --arch')
        load(args.source, device='cpu')
        target = 'the model that it describes'
    elif args.config and any(k.startswith('decode_head.') for k in weights):
        strict_load(load(args.config, device='cpu'), weights, args.source)
        target = f'the model of {args.config}'
    else:
        prefix = whole_prefix(weights)
        weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        _build(wanted).load_pretrained(weights, args.source)
        target = f'{wanted["type"]} {wanted["arch"]}'
    print(f'{args.source} fits {target}: {_size(weights)}')


def _backbone_config(args: argparse.Namespace) -> dict[str, Any] | None:
    if args.config and (args.type or args.arch):
        raise UsageError(f'expected either a config, or --type and --arch, got {args.config} with --type or --arch')
    if bool(args.type) != bool(args.arch):
        raise UsageError(f'--type and --arch go together, got --type {args.type} --arch {args.arch}')
    if args.config:
        return dict(load_config(args.config).model.backbone)
    return dict(type=args.type, arch=args.arch, pretrain_img_size=args.img_size) if args.type else None


def _build(wanted: dict[str, Any]) -> Backbone:
    try:
        with DefaultScope.overwrite_default_scope('mmseg'):
            backbone = MODELS.build({**wanted, 'init_cfg': None})
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(' '.join(str(error).split())) from error
    if not isinstance(backbone, Backbone):
        raise UsageError(f'{wanted["type"]} is not a backbone of mmseg_volo: expected one of {", ".join(ARCHS)}')
    return backbone


def _size(weights: Mapping[str, Tensor]) -> str:
    return f'{len(weights)} tensors, {sum(v.nbytes for v in weights.values()) / 1e6:.1f} MB'
