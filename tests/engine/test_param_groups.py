"""Learning rates and weight decay of each parameter: by depth, by stage, by kind and by custom keys."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from helpers.tiny_backbones import FAMILIES, build
from mmengine.optim import OptimWrapper, PolyLR, build_optim_wrapper
from torch import nn

import mmseg_volo
from mmseg_volo.engine.optim.param_groups import ProportionalPolyLR
from mmseg_volo.errors import UsageError

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
        ours = Segmentor(mmseg_volo.models.backbones.CAFormer(dict(depths=depths, dims=(32, 32, 32, 32))))
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
        ('num_layers needs', dict(layer_decay_rate=0.9, num_layers=12)),
        ('num_layers must be a whole number of at least 4', dict(decay_type='stage_wise', num_layers=2)),
        ('ResNetLike does not define depths', dict(layer_decay_rate=0.9, decay_type='stage_wise')),
        (
            "takes layer_decay_rate, decay_type, num_layers, custom_keys, got also \\['layer_decay'\\]",
            dict(layer_decay=0.9),
        ),
        ('layer_decay_rate must lie in \\(0, 1\\], got 1.5', dict(layer_decay_rate=1.5)),
        ("layer_decay_rate must lie in \\(0, 1\\], got '0.9'", dict(layer_decay_rate='0.9')),
        ("no parameter has \\['decode_haed'\\]", dict(custom_keys=dict(decode_haed=dict(lr_mult=10.0)))),
        ('custom_keys.decode_head: expected a dict of', dict(custom_keys=dict(decode_head=dict(lr_mul=10.0)))),
        ('ResNetLike does not define depths', dict(layer_decay_rate=0.9)),
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
