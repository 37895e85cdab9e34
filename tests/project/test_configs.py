"""Every shipped config builds, and its parts agree."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from helpers.experiments import EXPERIMENTS, every, on_meta
from helpers.paths import ROOT
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, MODELS
from torch.utils.flop_counter import FlopCounterMode

from mmseg_volo.config import CONFIGS, find_config, load_config, shipped_configs
from mmseg_volo.errors import UsageError
from mmseg_volo.models import pretrained as zoo

assert EXPERIMENTS, f'no experiment found under {CONFIGS}'
LEAVES = sorted((CONFIGS / '_base_').rglob('*.py'))


@every
def test_builds_and_agrees(path: Path) -> None:
    cfg, model = load_config(path), on_meta(path)
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        crop = cfg.crop_size
        maps = model.backbone(torch.empty(2, 3, *crop))
        assert tuple(m.shape[1] for m in maps) == model.backbone.out_channels
        for m, stride in zip(maps, model.backbone.out_strides, strict=True):
            assert m.shape[-2:] == (-(-crop[0] // stride), -(-crop[1] // stride))
        if model.with_neck:
            maps = model.neck(maps)
            for m, stride in zip(maps, model.neck.out_strides, strict=True):
                assert m.shape[-2:] == (-(-crop[0] // stride), -(-crop[1] // stride))
        logits = model.decode_head(maps)
        heads = [model.decode_head]
        if model.with_auxiliary_head:
            heads.append(model.auxiliary_head)
            assert model.auxiliary_head(maps).shape[1] == logits.shape[1]
    assert logits.shape[:2] == (2, cfg.num_classes)
    for head in heads:
        given = [head.in_channels] if isinstance(head.in_channels, int) else head.in_channels
        indices = [head.in_index] if isinstance(head.in_index, int) else head.in_index
        assert [maps[i].shape[1] for i in indices] == list(given)
        assert head.num_classes == cfg.num_classes
        assert head.ignore_index == 255


@every
def test_every_parameter_has_a_gradient(path: Path) -> None:
    """So that DDP needs no `find_unused_parameters`; shapes without numbers, of two blocks per stage."""
    cfg = load_config(path)
    backbone = cfg.model.backbone
    backbone.update(init_cfg=None, with_cp=False)
    if isinstance(backbone.arch, str):
        arch = vars(zoo.ARCHS[backbone.type][backbone.arch])
        backbone.arch = {**arch, 'depths': [min(depth, 2) for depth in arch['depths']]}
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model).train()
        maps = model.extract_feat(torch.empty(2, 3, 64, 64))
        heads = [model.decode_head] + ([model.auxiliary_head] if model.with_auxiliary_head else [])
        sum(head(maps).sum() for head in heads).backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused and not cfg.get('find_unused_parameters')


@every
def test_crops_and_classes_agree(path: Path) -> None:
    cfg = load_config(path)
    crop = cfg.crop_size
    assert cfg.model.data_preprocessor.size == crop
    assert [t.crop_size for t in cfg.train_pipeline if 'crop_size' in t] == [crop]
    if cfg.model.test_cfg.mode == 'slide':
        assert cfg.model.test_cfg.crop_size == crop
        assert all(s <= c for s, c in zip(cfg.model.test_cfg.stride, crop, strict=True))
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = DATASETS.build({**cfg[loader].dataset, 'pipeline': [], 'lazy_init': True})
        assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == cfg.num_classes
        assert cfg[loader].dataset.data_root == cfg.data_root
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0


@every
def test_batch_and_optimiser_are_those_of_the_recipe(path: Path) -> None:
    cfg = load_config(path)
    card = re.search(r'\((\d+) GPUs x (\d+) images\)', path.read_text())
    gpus, images = map(int, card.groups()) if card else (1, cfg.train_dataloader.batch_size)
    assert images == cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=gpus * images)
    if card:
        assert cfg.optim_wrapper.constructor == 'SegOptimWrapperConstructor'
        assert cfg.param_scheduler[-1].type == 'ProportionalPolyLR'


@every
def test_weights_are_those_of_the_backbone(path: Path) -> None:
    """The ImageNet weights of a config exist in timm, at the size that it says, or are its variant's official file."""
    import timm

    backbone = load_config(path).model.backbone
    if 'init_cfg' not in backbone:
        return
    source = backbone.init_cfg.checkpoint
    if not source.startswith('timm://'):
        assert source == zoo.PUBLISHED[backbone.type][backbone.arch].weights
        assert backbone.get('pretrain_img_size', 224) == 224
        return
    name = source.removeprefix('timm://')
    pretrained = timm.get_pretrained_cfg(name, allow_unregistered=False)
    assert pretrained is not None and pretrained.hf_hub_id
    assert pretrained.input_size[-1] == backbone.get('pretrain_img_size', 224)
    assert re.match(rf'{backbone.type.lower()}_{backbone.arch}(_\d+)?\.', name)


# with UPerNet: parameters (M) with the auxiliary head, GMACs of 512x2048 without (MetaFormer's tables, third party)
WHOLE = {
    'convformer_s18': (54, 925),
    'convformer_s36': (67, 1003),
    'convformer_m36': (85, 1113),
    'caformer_s18': (54, 1024),
    'caformer_s36': (67, 1197),
    'caformer_m36': (84, 1346),
}


@pytest.mark.parametrize('name', WHOLE)
def test_whole_models_are_as_big_as_published(name: str) -> None:
    params, gmacs = WHOLE[name]
    cfg = load_config(f'{name}_ade20k')
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        upernet = dict(decode_head={**cfg.model.decode_head, 'type': 'UPerHead'})  # ours multiplies less
        model = MODELS.build({**cfg.model, **upernet, 'backbone': {**cfg.model.backbone, 'init_cfg': None}}).eval()
        with FlopCounterMode(display=False) as counter:
            model.decode_head(model.backbone(torch.empty(1, 3, 512, 2048)))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(params, abs=0.5)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=2e-3)


@every
def test_recipe_card(path: Path) -> None:
    card = re.match(r'"""(.*?)"""', path.read_text(), re.S)[1]
    for word in ('Recipe', 'Command', path.name, 'Published', 'Ours'):
        assert word in card, f'{path.name}: its docstring lacks {word!r}'


@pytest.mark.parametrize('path', LEAVES, ids=[p.stem for p in LEAVES])
def test_leaves_have_no_bases_and_are_used(path: Path) -> None:
    assert '_base_' not in Config.fromfile(path)
    assert not re.search(r'^_base_\s*=', path.read_text(), re.M)
    assert any(str(path.relative_to(CONFIGS)) in e.read_text() for e in EXPERIMENTS), f'nothing uses {path.name}'


def test_adamw_schedules_differ_in_length_only() -> None:
    short, long = ((CONFIGS / f'_base_/schedules/adamw_{n}k.py').read_text().split('"""')[2] for n in (80, 160))
    assert short == long.replace('160_000', '80_000')


def test_the_config_of_the_published_number_is_where_it_was_promised() -> None:
    assert (ROOT / 'configs/volo_d4_cityscapes.py').is_file()
    short, long = load_config('volo_d4_cityscapes'), load_config('volo_d4_cityscapes_160k')
    assert (short.train_cfg.max_iters, long.train_cfg.max_iters) == (80_000, 160_000)  # iter_80000.pth in the README
    assert short.model == long.model


def test_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ('volo_d4_cityscapes', 'volo_d4_cityscapes.py', 'configs/volo_d4_cityscapes.py'):
        assert find_config(given) == CONFIGS / 'volo_d4_cityscapes.py'
    assert 'volo_d4_cityscapes' in shipped_configs()
    with pytest.raises(UsageError, match='no config at .*volo_d4_citiscapes.*did you mean volo_d4_cityscapes'):
        find_config('volo_d4_citiscapes')


def test_data_root_reaches_all_loaders() -> None:
    cfg = load_config('volo_d1_cityscapes', {'data_root': '/elsewhere'})
    roots = [cfg[k].dataset.data_root for k in ('train_dataloader', 'val_dataloader', 'test_dataloader')]
    assert roots == ['/elsewhere'] * 3


def test_typos_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'mine.py'
    path.write_text("optim_wraper = dict(type='OptimWrapper')\n")
    with pytest.raises(UsageError, match="unknown key 'optim_wraper'; did you mean 'optim_wrapper'"):
        load_config(path)
    path.write_text('model = dict(\n')
    with pytest.raises(UsageError, match='mine.py does not load: SyntaxError'):
        load_config(path)
    with pytest.raises(UsageError, match="no 'modle'; did you mean model"):
        load_config('volo_demo', {'modle.backbone.arch': 'd1'})


def test_text_follows_the_content() -> None:
    cfg = load_config('volo_demo')
    plain = Config(cfg.to_dict())
    assert cfg.pretty_text == cfg.pretty_text == plain.pretty_text
    cfg.model.backbone.arch = 'd2'
    assert cfg.pretty_text == Config(cfg.to_dict()).pretty_text != plain.pretty_text
    other = pickle.loads(pickle.dumps(copy.deepcopy(cfg)))
    assert (other.pretty_text, other.filename, other.text) == (cfg.pretty_text, cfg.filename, cfg.text)
