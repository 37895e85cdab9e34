"""The contract of `backbones/base.py`, held by every family."""

from __future__ import annotations

import copy
import math
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from helpers.tiny_backbones import FAMILIES, build
from mmengine.registry import MODELS
from torch import Tensor, nn

import mmseg_volo  # noqa: F401  registers

assert set(FAMILIES) == set(mmseg_volo.models.backbones.__all__), 'every family is held to the contract'
family = pytest.mark.parametrize('name', FAMILIES)


def loss(maps: tuple[Tensor, ...]) -> Tensor:
    return sum((m.float() * torch.linspace(-1, 1, m.numel()).view(m.shape)).mean() for m in maps)


@family
@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 64), (97, 50), (40, 203)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    model = build(name).eval()
    maps = model(torch.randn(2, 3, *size))
    assert len(maps) == len(model.out_channels) == len(model.out_strides) == 4
    for m, channels, stride in zip(maps, model.out_channels, model.out_strides, strict=True):
        assert m.shape == (2, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        assert m.isfinite().all()


@family
@pytest.mark.parametrize('shape', [(1, 3, 31, 64), (1, 4, 64, 64), (3, 64, 64)])
def test_wrong_input_is_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r'\(B, 3, H, W\) with H and W of at least 32, got \('):
        build(name)(torch.zeros(shape))


@family
def test_out_indices(name: str) -> None:
    whole = build(name).eval()
    image = torch.randn(1, 3, 70, 64)
    maps = whole(image)
    for indices in ((0,), (1,), (0, 2), (1, 3)):
        part = build(name, out_indices=indices).eval()
        weights = {k: v for k, v in whole.state_dict().items() if not k.startswith('out_norms.')}
        part.load_pretrained(weights)
        assert part.out_channels == tuple(whole.out_channels[i] for i in indices)
        for ours, i in zip(part(image), indices, strict=True):
            torch.testing.assert_close(ours, maps[i])
        assert_all_trained(part)
    for wrong in ((), (4,), (1, 0), (0, 0)):
        with pytest.raises(ValueError, match='out_indices must be ascending stages of 0..3'):
            build(name, out_indices=wrong)


def assert_all_trained(model: nn.Module) -> None:
    model.train()
    loss(model(torch.randn(2, 3, 64, 96))).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without, f'no gradient: {without}'


@family
def test_every_parameter_gets_a_gradient(name: str) -> None:
    assert_all_trained(build(name))
    assert_all_trained(build(name, out_norm=False))


@family
def test_checkpointing_gives_the_same_gradients(name: str) -> None:
    plain, recomputed = (build(name, with_cp=with_cp, drop_path_rate=0.3).train() for with_cp in (False, True))
    recomputed.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 64, 80)
    for model in (plain, recomputed):
        torch.manual_seed(1)
        loss(model(image)).backward()
    for (n, a), b in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=n)


@family
def test_out_norm(name: str) -> None:
    normed, raw = build(name).eval(), build(name, out_norm=False).eval()
    raw.load_state_dict({k: v for k, v in normed.state_dict().items() if not k.startswith('out_norms.')})
    image = torch.randn(1, 3, 64, 64)
    for a, b in zip(normed(image), raw(image), strict=True):
        centred = b - b.mean(1, keepdim=True)
        torch.testing.assert_close(a, centred / (b.var(1, correction=0, keepdim=True) + 1e-5).sqrt())


@family
@pytest.mark.parametrize('frozen', [-1, 0, 1, 2, 4])
def test_frozen_stages(name: str, frozen: int) -> None:
    model = build(name, frozen_stages=frozen)
    assert model.train() is model
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    loss(model(torch.randn(2, 3, 64, 64))).backward()
    optimiser.step()
    changed = {k.removeprefix('module.') for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    frozen_keys, free_keys = set(), set()
    for i, modules in enumerate(model._stage_modules()):
        ids = {
            id(t) for module in modules for t in ([module] if isinstance(module, nn.Parameter) else _tensors(module))
        }
        keys = {k for k, v in [*model.named_parameters(), *model.named_buffers()] if id(v) in ids}
        (frozen_keys if i <= frozen else free_keys).update(keys)
    # buffers that no training changes: position tables, random features
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    constants = {k for k, _ in model.named_buffers() if not k.endswith(statistics)}
    assert frozen_keys | free_keys | constants | {k for k in before if k.startswith('out_norms.')} == set(before)
    assert not changed & (frozen_keys | constants)
    assert free_keys - constants <= changed


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@family
def test_drop_path_only_in_training(name: str) -> None:
    model, plain = build(name, drop_path_rate=0.8), build(name)
    plain.load_state_dict(model.state_dict())
    image = torch.randn(4, 3, 64, 64)
    for a, b in zip(model.eval()(image), plain.eval()(image), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(model.train()(image)[-1], plain.train()(image)[-1])


@family
@pytest.mark.parametrize('channels', [1, 2, 4, 7])
def test_in_channels(name: str, channels: int) -> None:
    rgb, other = build(name).eval(), build(name, in_channels=channels).eval()
    other.load_pretrained(rgb.state_dict())
    grey = torch.randn(1, 1, 64, 64)
    if channels == 1:  # a grey picture gives what the same picture as RGB gives
        for a, b in zip(other(grey), rgb(grey.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    # a convolution, or a projection of patches, channel by channel
    stem = other.state_dict()[other.stem_key].flatten(1).unflatten(1, (channels, -1))
    scale = 1 if channels == 1 else 3 / channels
    first = rgb.state_dict()[rgb.stem_key].flatten(1).unflatten(1, (3, -1))
    torch.testing.assert_close(stem[:, -1], first.sum(1) if channels == 1 else scale * first[:, (channels - 1) % 3])


@family
def test_bf16_autocast(name: str) -> None:
    model = build(name).eval()
    image = torch.randn(1, 3, 75, 96)
    exact = model(image)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = model(image)
    for a, b in zip(exact, rounded, strict=True):
        assert (a - b.float()).abs().max() < 2**-8 * 16 * a.abs().max()  # 8 bits, a few of them lost over the blocks


@family
def test_compile(name: str) -> None:
    headers = Path(sysconfig.get_path('include'), 'Python.h').is_file()  # a bare machine has none
    costly = name in ('IdentityFormer', 'PoolFormerV2', 'RandFormer')  # code is generated for their twins only
    backend = 'inductor' if headers and shutil.which('g++') and not costly else 'aot_eager'
    model = build(name).eval()
    image = torch.randn(1, 3, 75, 96)
    with torch.no_grad():
        for a, b in zip(model(image), torch.compile(model, backend=backend, fullgraph=True)(image), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@family
def test_wrong_arguments_are_named(name: str) -> None:
    for match, wrong in (
        ('frozen_stages must lie in -1..4, got 5', dict(frozen_stages=5)),
        ('drop_path_rate must lie in', dict(drop_path_rate=1.0)),
        ('pretrain_img_size must be a multiple of', dict(pretrain_img_size=100)),
        ('arch must be one of', dict(arch='d17')),
        ('keys', dict(arch=dict(dephts=[1]))),
        ("init_cfg must be dict\\(type='Pretrained'", dict(init_cfg=dict(type='Kaiming'))),
    ):
        with pytest.raises(ValueError, match=match):
            build(name, **wrong).init_weights()


@family
def test_is_found_from_both_registries(name: str) -> None:
    from mmseg.registry import MODELS as MMSEG_MODELS

    assert MODELS.get(name) is MMSEG_MODELS.get(name)


@family
def test_position_grid_is_resized_not_replaced(name: str) -> None:
    """Features of an image enlarged x2 resemble the enlarged features: not so if positions were made anew."""
    model = build(name, out_norm=False).eval()
    grid = dict(model.named_parameters()).get('pos_embed')
    if grid is None:
        pytest.skip(f'{name} has no trained position grid')
    constant = torch.zeros(1, 3, 128, 128)
    with torch.no_grad():
        grid.copy_(torch.linspace(-1, 1, grid.shape[2]).view(1, 1, -1, 1))
        wide = model(constant)[1]
    profile = wide[0].mean((0, 1))
    assert (profile[2:-2].diff() > 0).all() or (profile[2:-2].diff() < 0).all()


# layers of each stage of TINY after the stem, which T2T-ViT does not have: its first token layer is 0
LAYERS = {'T2TViT': (0, 1, 2, 1), 'CoAtNet': (1, 2, 2, 1), 'VOLO': (2, 1, 2, 1)}
SAME_LAYER = {  # what leads to a block has its depth
    'T2TViT': ('tokens_to_token.project.weight', 'cls_token', 'blocks.0.mlp.fc2.bias'),
    'CoAtNet': ('stages.2.blocks.0.shortcut.expand.weight', 'stages.2.blocks.0.mlp.fc2.bias'),
    'VOLO': ('network.1.proj.weight', 'pos_embed', 'network.2.0.mlp.fc2.bias'),
}


@family
@pytest.mark.parametrize('indices', [(0,), (1,), (0, 2), (0, 1, 2, 3)])
def test_every_parameter_has_a_depth(name: str, indices: tuple[int, ...]) -> None:
    model = build(name, out_indices=indices, in_channels=1)
    ids = model.layer_ids()
    last = sum(LAYERS.get(name, (1, 2, 1, 1))[: model.num_stages])
    assert ids.keys() == dict(model.named_parameters()).keys()
    assert set(ids.values()) == set(range(last + 1))
    assert ids[model.stem_key] == 0
    assert {ids[k] for k in ids if k.startswith('out_norms.')} == {last}


@family
def test_depths_grow_in_the_order_of_the_forward_pass(name: str) -> None:
    model = build(name).eval()
    ids, seen = model.layer_ids(), []
    for prefix, module in model.named_modules():
        if depths := {ids[k] for k, _ in module.named_parameters(prefix, recurse=False) if prefix}:
            module.register_forward_pre_hook(lambda *_, depths=depths: seen.extend(depths))
    model(torch.zeros(1, 3, 64, 64))
    assert seen == sorted(seen) and set(seen) == set(ids.values())
    default = ('stages.1.downsample.conv.weight', 'stages.1.blocks.0.mlp.fc2.weight')
    assert len({ids[k] for k in SAME_LAYER.get(name, default)}) == 1
