"""Learning rates, weight decay, precision, clipping and averaged weights: what a training's optimiser is made of."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper, PolyLR, build_optim_wrapper
from test_backbones import FAMILIES, build
from torch import nn

import mmseg_volo
from mmseg_volo.datasets import scenes
from mmseg_volo.engine import optim
from mmseg_volo.engine.param_groups import ProportionalPolyLR
from mmseg_volo.errors import UsageError
from mmseg_volo_cli import main

LR, DECAY = 6e-5, 0.01
TABLES = ('pos_embed', 'cls_token', 'relative_position_bias_table')


class Segmentor(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.decode_head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 2))


def wrapper(model: nn.Module, constructor: str = 'SegOptimWrapperConstructor', **paramwise_cfg) -> OptimWrapper:
    optimizer = dict(type='AdamW', lr=LR, weight_decay=DECAY)
    return build_optim_wrapper(
        model, dict(type='OptimWrapper', constructor=constructor, optimizer=optimizer, paramwise_cfg=paramwise_cfg)
    )


def settings(model: nn.Module, optim_wrapper: OptimWrapper) -> dict[str, tuple[float, float]]:
    """(learning rate, weight decay) of each parameter, by its name; each is in one group."""
    names = {id(p): n for n, p in model.named_parameters()}
    groups = optim_wrapper.optimizer.param_groups
    found = {names[id(p)]: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
    assert sum(len(g['params']) for g in groups) == len(found)
    return found


@pytest.mark.parametrize('rate', [1.0, 0.8])
@pytest.mark.parametrize('name', FAMILIES)
def test_rate_by_depth_and_decay_by_kind(name: str, rate: float) -> None:
    model = Segmentor(build(name))
    optim_wrapper = wrapper(model, layer_decay_rate=rate)
    ids = {f'backbone.{k}': v for k, v in model.backbone.layer_ids().items()}
    count, found = max(ids.values()) + 1, settings(model, optim_wrapper)
    assert found.keys() == dict(model.named_parameters()).keys()
    for key, param in model.named_parameters():
        lr, decay = found[key]
        assert lr == pytest.approx(LR * rate ** (count - ids[key]) if key in ids else LR)
        assert decay == (0 if param.ndim < 2 or key.endswith(TABLES) else DECAY), key
    groups = optim_wrapper.optimizer.param_groups
    assert len(groups) <= 2 * (count + 1 if rate < 1 else 1)
    assert (groups[0]['lr'], groups[0]['weight_decay']) == (LR, DECAY)  # what the log shows
    assert len({g['group_name'] for g in groups}) == len(groups)


@pytest.mark.parametrize(
    ('name', 'overrides', 'kept'),
    [
        ('VOLO', {}, 'pos_embed|network.0.0.norm1.weight|network.0.0.mlp.fc1.bias|patch_embed.conv.1.weight'),
        ('CAFormer', {}, r'stages.2.blocks.0.res_scale1.scale|stages.0.blocks.0.mlp.act.scale|out_norms.3.weight'),
        ('PoolFormerV2', {}, 'stages.0.blocks.0.norm1.weight|stages.0.blocks.0.mlp.act.bias'),
        ('T2TViT', {}, 'cls_token|tokens_to_token.attention1.norm1.weight'),
        ('CoAtNet', {}, 'stages.2.blocks.0.attn.rel_pos.relative_position_bias_table|stem.norm1.weight'),
        ('CoAtNet', dict(arch='rmlp_nano_rw'), r'stages.2.blocks.0.attn.rel_pos.mlp.fc1.weight|stem.norm1.bias'),
        ('CoAtNet', dict(arch='rmlp_2_rw'), 'stages.3.blocks.0.ls1.gamma'),
    ],
)
def test_no_decay_on_norms_biases_tables_and_scales(name: str, overrides: dict, kept: str) -> None:
    with torch.device('meta'):
        model = Segmentor(build(name, **overrides))
    found = settings(model, wrapper(model))
    for key in kept.split('|'):
        assert found[f'backbone.{key}'][1] == 0, key
    decayed = {k for k, (_, decay) in found.items() if decay}
    assert decayed and all(k.endswith('weight') and not re.search(r'norm|rel_pos', k) for k in decayed)


class ConvNeXtNames(nn.Module):
    """The parameters of a ConvNeXt by their names, one per layer, for mmseg's constructor."""

    def __init__(self, depths: tuple[int, ...]):
        super().__init__()
        self.downsample_layers = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in depths)
        self.stages = nn.ModuleList(nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(n)) for n in depths)
        self.norm3 = nn.LayerNorm(1)


@pytest.mark.parametrize(('blocks', 'layers'), [(9, 6), (27, 12), (18, 9)])
def test_stage_wise_it_decays_as_convnexts_recipe(blocks: int, layers: int) -> None:
    """ConvNeXt's recipes say 6 layers for 9 blocks in the third stage (T) and 12 for 27 (S, B, L, XL)."""
    depths = (3, 3, blocks, 3)
    theirs = Segmentor(ConvNeXtNames(depths))
    rules = dict(decay_rate=0.9, decay_type='stage_wise', num_layers=layers)
    wanted = settings(theirs, wrapper(theirs, 'mmseg.LearningRateDecayOptimizerConstructor', **rules))
    with torch.device('meta'):
        ours = Segmentor(mmseg_volo.backbones.CAFormer(dict(depths=depths, dims=(32, 32, 32, 32))))
    found = settings(ours, wrapper(ours, layer_decay_rate=0.9, decay_type='stage_wise'))
    assert found == settings(ours, wrapper(ours, layer_decay_rate=0.9, decay_type='stage_wise', num_layers=layers))
    same = {'backbone.stem.': 'downsample_layers.0.weight', 'backbone.out_norms.3.': 'norm3.weight'}
    for stage, count in enumerate(depths):
        same |= {f'backbone.stages.{stage}.blocks.{i}.': f'stages.{stage}.{i}.weight' for i in range(count)}
        same |= {f'backbone.stages.{stage}.downsample.': f'downsample_layers.{stage}.weight'} if stage else {}
    for start, key in same.items():
        rates = {lr for name, (lr, _) in found.items() if name.startswith(start)}
        assert [*rates] == [pytest.approx(wanted[f'backbone.{key}'][0])], start
    assert found['decode_head.0.weight'][0] == wanted['decode_head.0.weight'][0] == LR
    assert found['backbone.stages.0.blocks.0.mlp.fc1.weight'][0] == pytest.approx(LR * 0.9**layers)
    assert found['backbone.stem.conv.weight'][0] == pytest.approx(LR * 0.9 ** (layers + 1))


@pytest.mark.parametrize('name', FAMILIES)
def test_every_parameter_has_a_stage(name: str) -> None:
    backbone = build(name)
    ids, blocks = backbone.stage_ids(), backbone.block_list()
    assert ids.keys() == {k for k, _ in backbone.named_parameters() if not k.startswith('out_norms.')}
    assert sum(backbone.block_counts()) == len(blocks) and len(backbone.block_counts()) == 4
    by_id = {id(p): ids[k] for k, p in backbone.named_parameters() if k in ids}
    stages = [{by_id[id(p)] for p in block.parameters()} for block in blocks]
    assert [*map(len, stages)] == [1] * len(blocks)
    flat = [i for stage in stages for i in stage]
    assert flat == [i + 1 for i, count in enumerate(backbone.block_counts()) for _ in range(count)]
    assert ids[backbone.stem_key] == 0


def test_custom_keys_come_on_top() -> None:
    model = Segmentor(build('VOLO', frozen_stages=0))
    keys = {
        'decode_head': dict(lr_mult=10.0),
        'network.4': dict(lr_mult=0.5, decay_mult=3.0),
        'network': dict(lr_mult=7),
    }
    found = settings(model, wrapper(model, layer_decay_rate=0.5, custom_keys=keys))
    wanted = {
        'decode_head.0.weight': (10 * LR, DECAY),
        'decode_head.1.weight': (10 * LR, 0),  # a norm stays without decay, where mmengine's rule would decay it
        'decode_head.0.bias': (10 * LR, 0),
        'backbone.network.4.0.mlp.fc1.weight': (0.5 * LR * 0.5, 3 * DECAY),  # the longest key wins
        'backbone.network.4.0.mlp.fc1.bias': (0.5 * LR * 0.5, 0),
        'backbone.network.3.1.mlp.fc1.weight': (7 * LR * 0.5**2, DECAY),
        'backbone.out_norms.0.weight': (LR * 0.5, 0),
    }
    for key, (lr, decay) in wanted.items():
        assert found[key] == (pytest.approx(lr), pytest.approx(decay)), key
    assert not any(k.startswith('backbone.patch_embed') for k in found)  # frozen


def test_without_settings_it_trains_as_mmengines_does() -> None:
    """The same updates as mmengine's constructor gives when it is told each rule that applies to VOLO."""
    ours = Segmentor(build('VOLO'))
    theirs = copy.deepcopy(ours)
    rules = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(pos_embed=dict(decay_mult=0.0)))
    for model, optim_wrapper in (
        (ours, wrapper(ours)),
        (theirs, wrapper(theirs, 'DefaultOptimWrapperConstructor', **rules)),
    ):
        torch.manual_seed(1)
        for _ in range(2):
            maps = model.backbone(torch.randn(2, 3, 64, 64))
            optim_wrapper.update_params(sum(m.square().mean() * (m[:, 0] + 1).mean() for m in maps))
    for (key, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize(
    ('message', 'paramwise_cfg'),
    [
        ('decay_type must be one of', dict(layer_decay_rate=0.9, decay_type='per_stage')),
        ('num_layers goes with', dict(layer_decay_rate=0.9, num_layers=12)),
        ('num_layers must be a whole number of at least 4', dict(decay_type='stage_wise', num_layers=2)),
        ('ResNetLike does not say how deep', dict(layer_decay_rate=0.9, decay_type='stage_wise')),
        (
            "knows layer_decay_rate, decay_type, num_layers, custom_keys, got also \\['layer_decay'\\]",
            dict(layer_decay=0.9),
        ),
        ('layer_decay_rate must lie in \\(0, 1\\], got 1.5', dict(layer_decay_rate=1.5)),
        ("layer_decay_rate must lie in \\(0, 1\\], got '0.9'", dict(layer_decay_rate='0.9')),
        ("no parameter has \\['decode_haed'\\]", dict(custom_keys=dict(decode_haed=dict(lr_mult=10.0)))),
        ('custom_keys.decode_head: expected a dict of', dict(custom_keys=dict(decode_head=dict(lr_mul=10.0)))),
        ('ResNetLike does not say how deep', dict(layer_decay_rate=0.9)),
    ],
)
def test_typos_are_named(message: str, paramwise_cfg: dict) -> None:
    other = type('ResNetLike', (nn.Linear,), {})(2, 2)
    with pytest.raises(UsageError, match=message):
        wrapper(Segmentor(other if 'ResNet' in message else build('VOLO')), **paramwise_cfg)


def test_the_schedule_keeps_the_proportions_below_its_end() -> None:
    """Slower layers end slower in proportion; a tenfold head ends where the others do."""
    model = Segmentor(build('VOLO'))
    rates = {}
    for kind in (ProportionalPolyLR, PolyLR):
        optim_wrapper = wrapper(model, layer_decay_rate=0.5, custom_keys=dict(decode_head=dict(lr_mult=10.0)))
        groups = optim_wrapper.optimizer.param_groups
        first = torch.tensor([g['lr'] for g in groups])
        schedule = kind(optim_wrapper, eta_min=5e-6, begin=0, end=50, by_epoch=False)
        for _ in range(60):
            rates.setdefault(kind, []).append(torch.tensor(optim_wrapper.get_lr()['lr']) / first)
            optim_wrapper.step()
            schedule.step()
        assert optim_wrapper.get_lr()['base_lr'] == [pytest.approx(5e-6)]
    ours, theirs = torch.stack(rates[ProportionalPolyLR]), torch.stack(rates[PolyLR])
    slow = first < 1.01 * LR
    assert slow.any() and not slow.all()
    torch.testing.assert_close(ours[:, slow], ours[:, slow][:, :1].expand_as(ours[:, slow]))
    torch.testing.assert_close(ours[-1] * first, (5e-6 * first / LR).clamp(max=5e-6))
    assert theirs[-1].max() > 1  # mmengine's makes the stem faster than it began


OLD, NEW, NONE = (7, 5), (9, 0), None
BF16 = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
FP16 = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
FP32, CPU = dict(type='OptimWrapper'), dict(type='CpuAmpOptimWrapper')


@pytest.mark.parametrize(
    ('gpu', 'amp', 'given', 'wanted'),
    [
        (NONE, None, FP32, FP32),
        (NONE, True, FP32, CPU),
        (NONE, True, FP16, CPU),
        (NONE, False, CPU, FP32),
        (OLD, None, FP32, FP32),
        (OLD, True, FP32, FP16),
        (NEW, None, FP32, BF16),
        (NEW, None, FP16, FP16),  # the config's own
        (NEW, True, FP16, BF16),
        (NEW, False, FP32, FP32),
        (NEW, False, FP16, FP32),
        (NEW, None, dict(type='Mine'), dict(type='Mine')),
    ],
)
def test_precision(
    gpu: tuple[int, int] | None, amp: bool | None, given: dict, wanted: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: gpu)
    chosen = copy.deepcopy(given)
    optim.set_precision(chosen, amp)
    assert chosen == wanted
    with pytest.raises(UsageError, match='has its own, Mine'):
        optim.set_precision(dict(type='Mine'), True)


CONFIG = """
_base_ = ['{configs}/_base_/models/segformer.py', '{configs}/_base_/datasets/demo.py',
          '{configs}/_base_/schedules/adamw_80k.py', '{configs}/_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(type='CAFormer', arch=dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32])),
    decode_head=dict(in_channels=[8, 16, 32, 32], channels=16, num_classes=_base_.num_classes),
)
optim_wrapper = dict(optimizer=dict(lr=0.3), clip_grad=dict(max_norm=0.01), paramwise_cfg=dict(layer_decay_rate=0.9))
param_scheduler = [dict(type='LinearLR', start_factor=1 / 60, begin=0, end=1500, by_epoch=False)]  # few iterations
train_cfg = dict(max_iters=2)
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=0.25)]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1, save_best=None), logger=dict(interval=1))
"""
NO_WORKERS = [
    f'{k}_dataloader.{o}' for k in ('train', 'val', 'test') for o in ('num_workers=0', 'persistent_workers=False')
]


def saved(work: Path, iteration: int, key: str = 'state_dict') -> dict[str, torch.Tensor]:
    return torch.load(work / f'iter_{iteration}.pth', weights_only=True)[key]


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """(norm of the gradient at each update, the backbone's weights at each test forward)."""
    norms, tested = [], []
    step, forward = torch.optim.AdamW.step, mmseg_volo.backbones.CAFormer.forward

    def spy_step(self: torch.optim.AdamW, *args, **kwargs) -> None:
        grads = [p.grad for g in self.param_groups for p in g['params']]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())
        step(self, *args, **kwargs)

    def spy_forward(self: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not self.training:
            tested.append({f'backbone.{k}': v.cpu().clone() for k, v in self.state_dict().items()})
        return forward(self, x)

    monkeypatch.setattr(torch.optim.AdamW, 'step', spy_step)
    monkeypatch.setattr(mmseg_volo.backbones.CAFormer, 'forward', spy_forward)
    return norms, tested


def test_averaged_weights_and_clipping_in_a_real_training(
    tmp_path: Path, spied: tuple[list[float], list[dict[str, torch.Tensor]]], capsys: pytest.CaptureFixture
) -> None:
    """Train, resume, test, test with TTA: what is saved, tested and loaded is the average that its definition gives."""
    data = scenes.generate(tmp_path / 'scenes', 4, 2, 64, 128)
    config, work = tmp_path / 'small.py', tmp_path / 'work'
    config.write_text(CONFIG.format(configs=mmseg_volo.config.CONFIGS))
    options = ['--work-dir', str(work), '--cfg-options', f'data_root={data}', *NO_WORKERS]
    norms, tested = spied
    assert main(['train', str(config), *options]) == 0
    start = r'effective batch 4 = 1 process x 4 images \(recipe: 4\), (float32 on cpu|bfloat16 on cuda)\n'
    assert re.search(start, capsys.readouterr().out)
    assert main(['train', str(config), '--resume', *options, 'train_cfg.max_iters=3']) == 0
    assert norms == [pytest.approx(0.01, rel=1e-3)] * 3
    assert min(float(n) for n in re.findall(r'grad_norm: ([\d.]+)', capsys.readouterr().out)) > 0.01

    # mmengine keeps the trained weights where the averaged ones would be, and the other way round
    trained = [{k.removeprefix('module.'): v for k, v in saved(work, i, 'ema_state_dict').items()} for i in (1, 2, 3)]
    average = [saved(work, i) for i in (1, 2, 3)]
    names = [k for k, _ in mmseg_volo.load(work / 'iter_3.pth').named_parameters()]
    moved = 0.0
    for key in names:
        torch.testing.assert_close(average[0][key], trained[0][key])  # starts with what the first update made
        for i in (1, 2):
            torch.testing.assert_close(average[i][key], torch.lerp(average[i - 1][key], trained[i][key], 0.25))
        moved = max(moved, (average[2][key] - trained[2][key]).abs().max().item())
    assert moved > 1e-3  # so that the comparisons below can tell them apart

    torch.save({f'module.{k}': v for k, v in average[2].items()}, tmp_path / 'bare.pth')
    for arguments in ([str(work / 'iter_3.pth')], [str(tmp_path / 'bare.pth'), '--tta']):
        tested.clear()
        assert main(['test', str(config), *arguments, *options]) == 0
        assert tested
        for key, weight in tested[-1].items():
            assert torch.equal(weight, average[2][key]), key
    for key, weight in mmseg_volo.load(work / 'iter_3.pth').state_dict().items():
        assert torch.equal(weight.cpu(), average[2][key]), key
