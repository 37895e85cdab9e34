"""Every type that a checkpoint may ask for, with every argument, word by word; transforms are applied to an image."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, DefaultScope
from PIL import ImageFile  # noqa: F401, Pillow imports it itself at the first image, whoever asks

import mmseg_volo.register_all  # noqa: F401
from mmseg_volo.io.allowed.kinds import (
    Either,
    Flag,
    Integer,
    Kind,
    Name,
    Needed,
    Nothing,
    Number,
    Part,
    Several,
    Table,
    Word,
)
from mmseg_volo.io.allowed.size import NoLargerThan
from mmseg_volo.io.allowed.types import GROUPS
from mmseg_volo.io.steps import MULTI_BAND_STEPS

EVERY = bool(os.environ.get('AUDIT_EVERY'))
TURNS: Counter[str] = Counter()
_RESNET = dict(depth=18, stem_channels=4, base_channels=4)
_ONE_STAGE = dict(_RESNET, num_stages=1, strides=[1], dilations=[1], out_indices=[0])
_VIT = dict(img_size=32, embed_dims=8, num_layers=1, num_heads=1)
_HR = {
    f'stage{i}': dict(num_modules=1, num_branches=i, block='BASIC', num_blocks=[1] * i, num_channels=[4] * i)
    for i in (1, 2, 3, 4)
}
_SIZE = dict(depths=[1] * 4, dims=[8, 16, 32, 32])
_LOSS = dict(type='CrossEntropyLoss')
HEAD = dict(in_channels=8, channels=8, num_classes=2)
MAPS = dict(in_channels=[8] * 4, in_index=[0, 1, 2, 3], channels=8, num_classes=2)
_STDC = dict(
    stdc_type='STDCNet1',
    in_channels=3,
    channels=(4, 4, 8, 8, 8),
    bottleneck_type='cat',
    norm_cfg=dict(type='BN'),
    act_cfg=dict(type='ReLU'),
)
SMALL: dict[str, dict[str, Any]] = {  # what a small one of a type takes, where the defaults are large or there are none
    **dict.fromkeys(('IdentityFormer', 'RandFormer', 'PoolFormerV2', 'ConvFormer', 'CAFormer'), dict(arch=_SIZE)),
    **dict.fromkeys(('ResNet', 'ResNetV1c', 'ResNetV1d'), _ONE_STAGE),
    **dict.fromkeys(('ResNeXt', 'ResNeSt'), {**_ONE_STAGE, 'depth': 50}),
    **dict.fromkeys(('VisionTransformer', 'BEiT', 'MAE'), _VIT),
    **dict.fromkeys(('UPerHead', 'LeanUPerHead', 'SegformerHead', 'LeanSegformerHead'), MAPS),
    'VOLO': dict(arch=dict(depths=[1] * 4, dims=[8, 16, 16, 16], num_heads=[1] * 4, stem_dim=8)),
    'T2TViT': dict(arch=dict(depths=[1, 1], dim=8, num_heads=1, token_dim=8)),
    'CoAtNet': dict(arch=dict(**_SIZE, stem_width=[8, 8], dim_head=8)),
    'HRNet': dict(extra=_HR),
    'MixVisionTransformer': dict(embed_dims=4, num_layers=[1] * 4, num_heads=[1] * 4),
    'SwinTransformer': dict(embed_dims=4, depths=[1] * 4, num_heads=[1] * 4),
    'PCPVT': dict(embed_dims=[8] * 4, depths=[1] * 4, num_heads=[1] * 4),
    'SVT': dict(embed_dims=[8] * 3, depths=[2] * 3, num_heads=[1] * 3),
    'MSCAN': dict(embed_dims=[8] * 4, depths=[1] * 4),
    'UNet': dict(base_channels=2),
    'BiSeNetV1': dict(backbone_cfg=dict(type='ResNet', **_RESNET), context_channels=(8, 16, 32)),
    'ICNet': dict(backbone_cfg=dict(type='ResNetV1c', **_RESNET, num_stages=4, out_indices=(1, 2, 3))),
    'STDCNet': _STDC,
    'PIDHead': {**HEAD, 'loss_decode': [_LOSS] * 4},
    'DDRHead': {**HEAD, 'loss_decode': [_LOSS] * 2},
    'EncHead': {**MAPS, 'num_codes': 2},
    'FPNHead': {**MAPS, 'feature_strides': [4, 8, 16, 32]},
    'ANNHead': dict(in_channels=[8, 8], in_index=[2, 3], channels=8, num_classes=2, project_channels=4),
    'LightHamHead': {**MAPS, 'ham_channels': 8},
    'LRASPPHead': dict(
        in_channels=(4, 4, 8),
        in_index=(0, 1, 2),
        channels=8,
        num_classes=2,
        branch_channels=(4, 8),
        input_transform='multiple_select',
    ),
    'DepthwiseSeparableASPPHead': {**HEAD, 'c1_in_channels': 4, 'c1_channels': 4},
    'OCRHead': {**HEAD, 'ocr_channels': 4},
    'DAHead': {**HEAD, 'pam_channels': 4},
    'EMAHead': {**HEAD, 'ema_channels': 8, 'num_bases': 2, 'num_stages': 1},
    'ISAHead': {**HEAD, 'isa_channels': 4},
    'DPTHead': {**MAPS, 'embed_dims': 8, 'post_process_channels': [8] * 4, 'input_transform': 'multiple_select'},
    'SETRMLAHead': {**MAPS, 'channels': 16, 'mla_channels': 4},
    'PSAHead': {**HEAD, 'mask_size': (4, 4)},
    'PointHead': {**HEAD, 'in_channels': [8], 'in_index': [0]},
    'LovaszLoss': dict(reduction='none'),
    'STDCContextPathNet': dict(last_in_channels=(8, 8), out_channels=8, backbone_cfg=dict(type='STDCNet', **_STDC)),
    'SegmenterMaskTransformerHead': {**HEAD, 'num_layers': 1, 'num_heads': 1, 'embed_dims': 8},
    'IterativeDecodeHead': dict(
        num_stages=1,
        kernel_generate_head=dict(type='FCNHead', **HEAD),
        kernel_update_head=[
            dict(
                type='KernelUpdateHead',
                in_channels=8,
                out_channels=8,
                num_heads=1,
                kernel_updator_cfg=dict(type='KernelUpdator', in_channels=8, feat_channels=8),
            )
        ],
    ),
    'KernelUpdateHead': dict(
        in_channels=8,
        out_channels=8,
        num_heads=1,
        kernel_updator_cfg=dict(type='KernelUpdator', in_channels=8, feat_channels=8),
    ),
    'StridePyramid': dict(in_channels=[8] * 4, in_strides=[8, 16, 16, 16]),
    'FPN': dict(in_channels=[8] * 4, out_channels=8, num_outs=4),
    'JPU': dict(in_channels=(8, 8, 8), mid_channels=8),
    'MLANeck': dict(in_channels=[8] * 4, out_channels=8, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')),
    'MultiLevelNeck': dict(in_channels=[8] * 4, out_channels=8),
    'Feature2Pyramid': dict(embed_dim=8),
    'ContextBlock': dict(ratio=0.5),
    'GN': dict(num_groups=2),
    'EncoderDecoder': dict(backbone=dict(type='ResNet', **_ONE_STAGE), decode_head=dict(type='FCNHead', **HEAD)),
    'CascadeEncoderDecoder': dict(
        num_stages=2,
        backbone=dict(type='ResNet', **_ONE_STAGE),
        decode_head=[dict(type='FCNHead', **HEAD), dict(type='OCRHead', **HEAD, ocr_channels=4)],
    ),
    **dict.fromkeys(MULTI_BAND_STEPS, dict(mean=[0], std=[1])),
    'Normalize': dict(mean=[0, 0, 0], std=[1, 1, 1]),
    'Pad': dict(size=(64, 64)),
    'Resize': dict(scale=(16, 16)),
    'ResizeShortestEdge': dict(scale=16, max_size=32),
    'CenterCrop': dict(crop_size=16),
    'RandomFlip': dict(prob=1.0),
}
SMALL['StreamingEncoderDecoder'] = SMALL['BandedEncoderDecoder'] = SMALL['EncoderDecoder']
GIVEN = {  # what the part that asks for one of these gives it
    'norms': dict(num_features=8),
    'convolutions': dict(in_channels=8, out_channels=8, kernel_size=1),
    'upsamples': dict(in_channels=8, out_channels=8),
    'plugins': dict(in_channels=8),
    'samplers': dict(context=None),
}


class Quick(NoLargerThan):
    """As where checkpoints are loaded, without the random numbers of a new model."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        random = func.__name__.split('.')[0] in ('uniform_', 'normal_', 'erfinv_')
        return args[0].zero_() if random else super().__torch_dispatch__(func, types, args, kwargs)


def smallest(group: str, name: str) -> dict[str, Any]:
    """A small one of a type."""
    small = SMALL.get(name, HEAD if group.startswith('heads') else {})
    return {'type': name, **copy.deepcopy(small)}


def _is_plain(kind: Kind) -> bool:
    """Whether a kind has neither words nor parts."""
    return isinstance(kind.kind if isinstance(kind, Several) else kind, (Nothing, Flag, Number))


def samples(kind: Kind) -> Iterator[Any]:
    """Values of a kind, every word of it; of numbers and types all if `EVERY`, else one, types in turn."""
    match kind:
        case Nothing():
            yield None
        case Flag():
            yield from (True, False) if EVERY else (True,)
        case Integer():
            yield from (value for value in ((-1, 0, 1, 2, 8) if EVERY else (2,)) if kind.low <= value <= kind.high)
        case Number():
            yield from (
                value for value in ((-1.5, 0, 0.25, 1, 2.5) if EVERY else (0.25,)) if kind.low <= value <= kind.high
            )
        case Word():
            yield from kind.words
        case Name():
            yield 'loss_pkl'
        case Several():
            for value in samples(kind.kind):
                yield [value] * (kind.exactly or 4)
            if EVERY:
                yield tuple(samples(kind.kind))[: kind.exactly]
        case Needed():
            yield from samples(kind.kind)
        case Either():
            for each in kind.kinds:
                if EVERY or each is kind.kinds[0] or not _is_plain(each):
                    yield from samples(each)
        case Table():
            yield {}
            for key, each in kind.arguments.items():
                yield from ({key: value} for value in samples(each))
        case Part():
            group = next(group for group, types in GROUPS.items() if types is kind.types())
            names = [*kind.types()]
            TURNS[group] += 1
            for name in names if EVERY else [names[TURNS[group] % len(names)]]:
                yield smallest(group, name)


def _groups() -> list[tuple[str, Mapping[str, Mapping[str, Kind]]]]:
    return [(group, types) for group, types in GROUPS.items() if EVERY or group != 'heads of one step']  # among heads


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each type as it is and with each value of each argument: its group and what is asked for."""
    for group, types in _groups():
        for name, arguments in types.items():
            yield group, smallest(group, name)
            for argument, kind in arguments.items():
                for value in samples(kind):
                    yield group, {**smallest(group, name), argument: value}


def build(group: str, asked: dict[str, Any]) -> Any:
    """A part, as the part that asks for it builds it; a transform is applied to an image."""
    if group == 'transforms':
        transform = TRANSFORMS.build(asked)
        loading = asked['type'] in ('LoadImageFromFile', 'LoadAnnotations', 'LoadMask', 'LoadRGBImage')
        return transform if loading else transform(image(asked['type']))
    given = dict(GIVEN.get(group, {}))
    if asked['type'] == 'GN':
        given = dict(num_channels=8)
    if asked['type'] == 'LN':
        given = dict(normalized_shape=8)
    requires_grad = asked.pop('requires_grad', None)
    large = isinstance(asked.get('arch'), str) and 'pretrain_img_size' in GROUPS['backbones'].get(asked['type'], ())
    with Quick([]), torch.device('meta') if large else nullcontext():
        part = (TASK_UTILS if group == 'samplers' else MODELS).build({**given, **asked})
    return part if requires_grad is None else part.requires_grad_(requires_grad)


def image(name: str) -> dict[str, Any]:
    """What a transform is given."""
    pixels = np.full((20, 24, 1 if name in MULTI_BAND_STEPS else 3), 7, np.uint8)
    pixels[5:] = 99
    shape = dict(img_shape=(20, 24), ori_shape=(20, 24), pad_shape=(20, 24), scale_factor=(1.0, 1.0), flip=False)
    return dict(img=pixels, seg_fields=[], img_path='a.png', flip_direction=None, **shape)


def build_all(watch: Any) -> dict[str, Any]:
    """How many parts were built, and which types never were."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        for group, types in _groups():  # brings what is imported late
            for name in types:
                try:
                    build(group, smallest(group, name))
                except Exception:  # noqa: S110, is seen below
                    pass
        ends, errors = Counter(), {}
        for group, asked in cases():
            name = asked['type']
            found = watch.call(repr(asked), build, group, copy.deepcopy(asked))
            ends[isinstance(found, Exception)] += 1
            if isinstance(found, Exception) and asked == smallest(group, name):
                errors[name] = f'{type(found).__name__}: {found}'
    return dict(built=ends[False], failed=ends[True], never=errors)
