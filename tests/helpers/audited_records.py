"""Records of models at random, in checkpoints that fit: all that loading them may open is the checkpoint."""

from __future__ import annotations

import copy
import inspect
import random
import traceback
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmengine.registry as registries
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import Registry
from mmseg import registry as mmseg_registry

import mmseg_volo
from helpers.audited_parts import samples
from helpers.files import Trap
from mmseg_volo.errors import UsageError
from mmseg_volo.io.allowed.types import GROUPS
from mmseg_volo.io.checkpoint import RECORD
from mmseg_volo.io.model_spec import config_of

META = dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 0, 0]])
SMALL = dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32])
FCN = dict(type='FCNHead', in_channels=16, channels=4, num_classes=2, num_convs=1, norm_cfg=dict(type='BN'))
LOSS = dict(type='CrossEntropyLoss', class_weight=[0.5, 1.0])
LOADING = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True)]
RECORDS = [
    dict(
        model=dict(
            type='StreamingEncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', mean=[1, 2, 3], std=[1, 2, 3], bgr_to_rgb=True),
            backbone=dict(type='CAFormer', arch=SMALL),
            decode_head=dict(FCN, in_channels=32, loss_decode=[LOSS]),
            test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(32, 32)),
        ),
        test_pipeline=[*LOADING, dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
    ),
    dict(
        model=dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor'),
            backbone=dict(type='VisionTransformer', img_size=32, embed_dims=16, num_layers=1, num_heads=1),
            decode_head=dict(FCN, in_channels=16, act_cfg=dict(type='ReLU')),
            auxiliary_head=[dict(FCN, in_channels=16)],
            train_cfg=None,
            test_cfg=dict(mode='whole'),
        ),
        test_pipeline=[dict(type='LoadMultiBandImage', mean=[0, 0, 0], std=[1, 1, 1]), dict(type='PackSegInputs')],
    ),
]
FORMATS = ('pkl', 'pickle', 'yaml', 'yml', 'json', 'npy', 'trap.pkl', 'trap.npy', 'trap.py')  # files that are there
KEYS = '_scope_ _base_ _delete_ __class__ __dict__ init_cfg pretrained custom_imports default_scope env_cfg args func'
VALUES = 'subprocess.Popen os.system builtins.eval importlib.import_module torch.load torch.nn.Linear mmpretrain.ResNet'
VALUES += ' mmcv.ops.DeformConv2d mmdet.MaskRCNN antigravity http://127.0.0.1:9/a.pth https://example.org/a.pth'
VALUES += ' file:///etc/hostname s3://a/b petrel ceph lmdb tifffile turbojpeg ../../etc/passwd ~/a {{$HOME}} \x1b[2J'


def registered() -> list[str]:
    """All names in all registries."""
    found: dict[str, None] = {}
    for module in (registries, mmseg_registry):
        for registry in vars(module).values():
            if isinstance(registry, Registry):
                found |= dict.fromkeys(registry.module_dict)
    return [*found]


def arguments() -> list[str]:
    """The names of all arguments of what is registered for models and pipelines."""
    found: dict[str, None] = {}
    for registry in (registries.MODELS, registries.TRANSFORMS, mmseg_registry.MODELS, mmseg_registry.TRANSFORMS):
        for part in registry.module_dict.values():
            found |= dict.fromkeys(inspect.signature(part).parameters)
    return [*found, *KEYS.split()]


class Dice:
    """Changes records at random."""

    def __init__(self, seed: int, folder: Path):
        self.random, self.types = random.Random(seed), registered()
        self.keys = arguments()
        self.words = [*FORMATS, *VALUES.split(' '), *(str(folder / name) for name in FORMATS)]
        self.odd = [
            OrderedDict,
            torch._utils._rebuild_parameter,
            torch.float16,
            torch.zeros(2, 2),
            10**9,
            10**30,
            -1,
            0,
        ]
        self.odd += [1e30, float('nan'), True, None, [], {}, [[[]]], 'linear', b'pkl', 64, 0.5, (1, 2), {1: 2}, 3, 16]

    def value(self, depth: int = 0) -> Any:
        """Anything."""
        kind = self.random.randrange(8)
        if kind < 3:
            return self.random.choice(self.words)
        if kind < 5 or depth > 2:
            return copy.deepcopy(self.random.choice(self.odd))
        if kind == 5:
            return [self.value(depth + 1) for _ in range(self.random.randint(1, 4))]
        name = self.random.choice(self.types if kind == 6 else self.words)
        return {'type': name, self.random.choice(self.keys): self.value(depth + 1)}

    def change(self, record: dict[str, Any]) -> None:
        """One change somewhere; at a part of the record, if it still has any."""
        places = [*_places(record)]
        holder, key = self.random.choice(places)
        parts = [h for h, k in places if k == 'type' and isinstance(h[k], str)]
        how = self.random.randrange(6) if parts else 4
        if how == 0 and isinstance(holder, dict) and holder is not record:
            del holder[key]
        elif how == 1:
            self.random.choice(parts)[self.random.choice(self.keys)] = self.value()
        elif how == 2:
            self.random.choice(parts)['type'] = self.random.choice(self.types)
        elif how == 3:
            other, there = self.random.choice(places)
            holder[key] = copy.deepcopy(other[there])
        elif how == 4:
            holder[key] = self.value()
        else:
            part = self.random.choice(parts)
            known = [types[part['type']] for types in GROUPS.values() if part['type'] in types]
            if known and known[0]:
                argument = self.random.choice([*known[0]])
                part[argument] = self.random.choice([*samples(known[0][argument])] or [None])


def _places(value: dict | list) -> Iterator[tuple[dict | list, Any]]:
    """Everything that a record holds: what holds it, and its key there."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)) and value[key]:
            yield from _places(value[key])


def weights_of(record: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Those of the model of a record, new."""
    dataset = dict(type='BaseSegDataset', metainfo=META)
    cfg = Config({**copy.deepcopy(record), 'test_dataloader': dict(dataset=dataset)})
    return mmseg_volo.load(cfg, device='cpu').state_dict()


def weights_for(record: dict[str, Any], weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of the model; of a record that is refused whatever weights there are a single one, as files are slow."""
    try:
        config_of({'meta': {RECORD: record}}, '')
    except UsageError:
        return dict([*weights.items()][:1])
    return weights


def use(path: Path) -> str:
    """Loads a checkpoint and segments an image."""
    model = mmseg_volo.load(path, device='cpu')
    mmseg_volo.predict(model, np.full((40, 48, 3), 9, np.uint8))
    return 'used'


def load_all(watch: Any, folder: Path, cases: int, seed: int = 0) -> dict[str, Any]:
    """How loading ended, by case; and tracebacks of what was no refusal in a sentence."""
    for name in FORMATS:
        torch.save(Trap(folder / 'trace'), folder / name)
    path, ends, odd = folder / 'record.pth', Counter(), Counter()
    dice, weights = Dice(seed, folder), [weights_of(record) for record in RECORDS]
    for record, tensors in zip(RECORDS, weights, strict=True):
        torch.save(dict(state_dict=tensors, meta={RECORD: record, 'dataset_meta': META, 'b': b'b'}), path)
        assert use(path) == 'used'
    watch.allowed = {str(path)}
    for case in range(cases):
        which = case % len(RECORDS)
        record, shown = copy.deepcopy(RECORDS[which]), copy.deepcopy(META)
        for _ in range(dice.random.choice((1, 1, 2, 4))):
            dice.change(record)
        if not case % 9:
            shown[dice.random.choice([*shown])] = dice.value()
        tensors = weights_for(record, weights[which])
        torch.save(dict(state_dict=tensors, meta={RECORD: record, 'dataset_meta': shown}), path)
        found = watch.call(f'{case}: {record}', use, path)
        ends[found if isinstance(found, str) else type(found).__name__] += 1
        if isinstance(found, Exception) and not isinstance(found, (UsageError, FileNotFoundError)):
            last = traceback.extract_tb(found.__traceback__)[-1]
            odd[f'{type(found).__name__} {found!s:.90} {last.filename[-50:]}:{last.lineno}'] += 1
    return dict(ends=dict(ends), odd=dict(odd.most_common(20)), trace=(folder / 'trace').exists())
