"""List the published weights of each backbone: addresses, top-1, and what images they expect."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

from mmseg_volo.io.weights import url_of
from mmseg_volo.models.backbones import coatnet, metaformer, t2t_vit, volo

ARCHS = {'VOLO': volo.ARCHS, **metaformer.ARCHS, 'T2TViT': t2t_vit.ARCHS, 'CoAtNet': coatnet.ARCHS}

# sources of top-1 and weights
VOLO = '[sail-sg/volo](https://github.com/sail-sg/volo)'
META = '[sail-sg/metaformer](https://github.com/sail-sg/metaformer)'
T2T = '[yitu-opensource/T2T-ViT](https://github.com/yitu-opensource/T2T-ViT)'
COAT = '[paper](https://arxiv.org/abs/2106.04803), third party'
TIMM = "[timm's model cards](https://huggingface.co/timm)"
SAIL = 'https://huggingface.co/sail/dl/resolve/main'
YITU = 'https://github.com/yitu-opensource/T2T-ViT/releases/download/main'
NO_WEIGHTS = 'none published'


class Published(NamedTuple):
    """Main ImageNet weights of a variant."""

    top1: str  # on ImageNet-1k validation, at 224 pixels and trained on ImageNet-1k alone unless noted
    weights: str  # `checkpoint` of `init_cfg`, or a file to download
    source: str


def _volo() -> dict[str, Published]:
    top1 = {'d1': '84.2', 'd2': '85.2', 'd3': '85.4', 'd4': '85.7', 'd5': '86.1'}
    return {arch: Published(value, f'timm://volo_{arch}_224.sail_in1k', VOLO) for arch, value in top1.items()}


def _metaformer(family: str, values: str, url: str) -> dict[str, Published]:
    name, archs = family.lower(), metaformer.ARCHS[family]
    rows = zip(archs, values.split(), strict=True)
    return {arch: Published(top1, url.format(name=name, arch=arch), META) for arch, top1 in rows}


def _t2t_vit() -> dict[str, Published]:
    files = '71.7_T2T_ViT_7 75.2_T2T_ViT_10 76.5_T2T_ViT_12 81.5_T2T_ViT_14 81.9_T2T_ViT_19 82.3_T2T_ViT_24'
    files += ' 81.7_T2T_ViTt_14 82.4_T2T_ViTt_19 82.6_T2T_ViTt_24'  # the names start with the top-1
    rows = zip(t2t_vit.ARCHS, files.split(), strict=True)
    return {arch: Published(name.split('_')[0], f'{YITU}/{name}.pth.tar', T2T) for arch, name in rows}


def _coatnet() -> dict[str, Published]:
    paper = {
        '0': '81.6',
        '1': '83.3',
        '2': '84.1',
        '3': '84.5',
        '4': '87.9 (21k, at 384)',
        '5': '89.77 (JFT-300M, at 512)',
        '6': '90.45 (JFT-3B)',
        '7': '90.88 (JFT-3B)',
    }
    timm = {
        'nano_rw': ('81.70', 'nano_rw_224.sw_in1k'),
        'rmlp_nano_rw': ('82.05', 'rmlp_nano_rw_224.sw_in1k'),
        '0_rw': ('82.39', '0_rw_224.sw_in1k'),
        'bn_0_rw': ('82.39', 'bn_0_rw_224.sw_in1k'),
        '1_rw': ('83.62', '1_rw_224.sw_in1k'),
        'rmlp_1_rw': ('83.36', 'rmlp_1_rw_224.sw_in1k'),
        'rmlp_1_rw2': ('84.90 (12k)', 'rmlp_1_rw2_224.sw_in12k_ft_in1k'),
        '2_rw': ('86.57 (12k)', '2_rw_224.sw_in12k_ft_in1k'),
        'rmlp_2_rw': ('87.39 (12k, at 384)', 'rmlp_2_rw_384.sw_in12k_ft_in1k'),
        '3_rw': ('not published', '3_rw_224.sw_in12k'),
    }
    rows = {arch: Published(top1, NO_WEIGHTS, COAT) for arch, top1 in paper.items()}
    return rows | {arch: Published(top1, f'timm://coatnet_{name}', TIMM) for arch, (top1, name) in timm.items()}


PUBLISHED = {
    'VOLO': _volo(),
    'CAFormer': _metaformer('CAFormer', '83.6 84.5 85.2 85.5', 'timm://{name}_{arch}.sail_in1k'),
    'ConvFormer': _metaformer('ConvFormer', '83.0 84.1 84.5 84.8', 'timm://{name}_{arch}.sail_in1k'),
    'IdentityFormer': _metaformer('IdentityFormer', '74.6 78.2 79.3 80.0 80.4', SAIL + '/{name}/{name}_{arch}.pth'),
    'RandFormer': _metaformer('RandFormer', '76.6 78.2 79.5 81.2 81.4', SAIL + '/{name}/{name}_{arch}.pth'),
    'PoolFormerV2': _metaformer('PoolFormerV2', '78.0 80.7 81.6 82.2 82.6', 'timm://{name}_{arch}.sail_in1k'),
    'T2TViT': _t2t_vit(),
    'CoAtNet': _coatnet(),
}


# timm's tags -> sail-sg/metaformer's
SAIL_TAGS = {
    'sail_in1k': '',
    'sail_in1k_384': '_384',
    'sail_in22k': '_in21k',
    'sail_in22k_ft_in1k': '_in21ft1k',
    'sail_in22k_ft_in1k_384': '_384_in21ft1k',
}
T2T_MORE = {('14', 384): '83.3_T2T_ViT_14', ('24', 224): '84.2_T2T_ViT_24'}  # at 384 pixels; with token labelling
HUB_FILES = ('model.safetensors', 'pytorch_model.bin')  # of a repository on the Hugging Face hub
OWN_NAME = re.compile(
    r'\d\d\.\d|-[0-9a-f]{8}\.'
)  # a score or a checksum, which only official files have in their names


class Weights(NamedTuple):
    """Published ImageNet weights and the images they expect.

    For timm's weights these facts are read from `pretrained_cfg`. Official files were trained with ImageNet's mean and
    standard deviation and bicubic resizing: `_cfg` in models/t2t_vit.py of yitu-opensource/T2T-ViT, in
    metaformer_baselines.py of sail-sg/metaformer and in models/volo.py of sail-sg/volo.
    """

    family: str
    arch: str
    pixels: int  # side of the images they were last trained on: `pretrain_img_size`
    checkpoint: str  # as `init_cfg` takes it
    mean: tuple[float, ...]  # of RGB values from 0 to 255
    std: tuple[float, ...]
    interpolation: str  # used for resizing in the evaluation on ImageNet
    licence: str
    top1: str = ''  # '' if not known
    source: str = ''  # of top-1, in Markdown
    twins: tuple[str, ...] = ()  # other addresses of the same weights


def available() -> list[Weights]:
    """List the weights of `PUBLISHED`, and timm's others for the same variants: other sizes, ImageNet-12k and -22k."""
    return [*_available()]


@cache
def _available() -> tuple[Weights, ...]:
    import timm

    rows = []
    for family, archs in PUBLISHED.items():
        for arch, published in archs.items():
            if published.weights.startswith('https'):
                rows.append(_official(family, arch, 224, published.weights, published.top1))
            for name in timm.list_pretrained(f'{family.lower()}_{arch}*'):
                # `volo_d1_384.sail_in1k`: only a size may follow the variant
                if re.fullmatch(rf'{family.lower()}_{arch}(_\d{{3}})?\..+', name):
                    rows.append(_timm(family, arch, name))
    return tuple(rows)


def _official(family: str, arch: str, pixels: int, url: str, top1: str) -> Weights:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    licence, source = ('bsd-3-clause-clear', T2T) if family == 'T2TViT' else ('apache-2.0', META)
    normal = _as_bytes(IMAGENET_DEFAULT_MEAN), _as_bytes(IMAGENET_DEFAULT_STD)
    return Weights(family, arch, pixels, url, *normal, 'bicubic', licence, top1, source)


def _timm(family: str, arch: str, name: str) -> Weights:
    import timm

    cfg, main = timm.get_pretrained_cfg(name), PUBLISHED[family][arch]
    top1 = main.top1 if main.weights == f'timm://{name}' else ''
    twins = [cfg.url] if cfg.url else []
    if family in metaformer.ARCHS:
        twins.append(f'{SAIL}/{family.lower()}/{family.lower()}_{arch}{SAIL_TAGS[name.partition(".")[2]]}.pth')
    return Weights(
        family,
        arch,
        cfg.input_size[-1],
        f'timm://{name}',
        _as_bytes(cfg.mean),
        _as_bytes(cfg.std),
        cfg.interpolation,
        cfg.license,
        top1,
        main.source,
        tuple(twins),
    )


def _as_bytes(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(255 * value, 4) for value in values)


def record_of(source: str | Path) -> Weights | None:
    """Find published weights by the name of their source.

    Args:
        source: as `init_cfg` takes it: `timm://NAME`, `https://...`, or a local file. A local file is recognised if it
            is in a cache, has timm's full name, or an official name with a score or a checksum (`d1_224_84.2.pth.tar`):
            other names may be anybody's.

    Returns:
        None for other weights.

    Raises:
        UsageError: timm has no weights of that name.
    """
    text = str(source)
    text = url_of(text) or Path(text).absolute().as_posix()
    more = [_official('T2TViT', *key, f'{YITU}/{name}.pth.tar', name[:4]) for key, name in T2T_MORE.items()]
    return next((row for row in [*available(), *more] if _is(row, text)), None)


def _is(row: Weights, text: str) -> bool:
    *folders, file = text.split('/')
    local = '://' not in text
    for address in (row.checkpoint, *row.twins):
        name = address.split('/')[-1]
        if address.startswith('timm://'):
            hub = folders[-3:-1] == [name, 'resolve'] or folders[-3:-1] == [f'models--timm--{name}', 'snapshots']
            if file in HUB_FILES and (hub or (local and folders[-1] == name)):
                return True
            if local and file.removesuffix(Path(file).suffix) == name and '.' in name:
                return True
        elif text == address or text.endswith(f'/{address}') or text.endswith(address.removeprefix('https:/')):
            return True
        elif local and file == name and OWN_NAME.search(name):
            return True
    return False


def backbone_size(family: str, arch: str) -> tuple[int, float]:
    """Count the parameters of a backbone without `out_norm` and classifier, and its GMACs for one image of 224x224.

    GMACs are the products of convolutions, linear layers and attention, T2T-ViT's class token included; norms,
    activations, softmax, VOLO's class attention and classifiers, which are not part of a backbone, are not counted.
    """
    with torch.device('meta'):
        model = MODELS.build(dict(type=family, arch=arch, out_norm=False)).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 2e9
