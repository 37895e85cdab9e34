"""The MetaFormer baselines against timm's, against the official formulas, and against the published counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import metaformer as timm_metaformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_volo.errors import UsageError
from mmseg_volo.models import backbones
from mmseg_volo.models.backbones import CAFormer, ConvFormer, IdentityFormer, PoolFormerV2, RandFormer, metaformer
from mmseg_volo.models.backbones.metaformer import MetaFormer
from mmseg_volo.models.backbones.mixers import MIXERS, RandomMixing

# parameters of the four stages without out_norms: timm's count without the classifier; frozen matrices not counted
_BASIC = {'s12': 11_377_688, 's24': 20_827_440, 's36': 30_277_192, 'm36': 55_306_632, 'm48': 72_575_520}
PARAMS = dict.fromkeys(('IdentityFormer', 'RandFormer', 'PoolFormerV2'), _BASIC) | {
    'ConvFormer': {'s18': 23_669_704, 's36': 36_907_408, 'm36': 53_411_472, 'b36': 94_439_568},
    'CAFormer': {'s18': 23_236_912, 's36': 36_192_358, 'm36': 52_564_710, 'b36': 93_310_566},
}
# classifier included, in millions, as printed (sail-sg/metaformer README, tables of models)
_BASIC_PRINTED = {'s12': '11.9', 's24': '21.3', 's36': '30.8', 'm36': '56.1', 'm48': '73.3'}
PUBLISHED = dict.fromkeys(('IdentityFormer', 'RandFormer', 'PoolFormerV2'), _BASIC_PRINTED) | {
    'ConvFormer': {'s18': '27', 's36': '40', 'm36': '57', 'b36': '100'},
    'CAFormer': {'s18': '26', 's36': '39', 'm36': '56', 'b36': '99'},
}
FROZEN = {'s12': '0.2', 's24': '0.5', 's36': '0.7', 'm36': '0.7', 'm48': '0.9'}  # RandFormer's matrices, same tables
GMACS = {  # at 224, same tables
    'IdentityFormer': {'s12': 1.8, 'm48': 11.5},
    'RandFormer': {'s12': 1.9, 'm48': 11.9},
    'PoolFormerV2': {'s12': 1.8},
    'ConvFormer': {'s18': 3.9, 'b36': 22.6},
    'CAFormer': {'s18': 4.1, 's36': 8.0, 'm36': 13.2, 'b36': 23.2},
}
TINY = dict(depths=[1, 2, 2, 1], dims=[16, 32, 64, 96])
IN_TIMM = {  # families that timm has, with its classes
    'PoolFormerV2': dict(token_mixers=timm_metaformer.Pooling, norm_layers=timm_metaformer.GroupNorm1NoBias),
    'ConvFormer': dict(token_mixers=timm_metaformer.SepConv),
    'CAFormer': dict(
        token_mixers=[timm_metaformer.SepConv] * 2 + [timm_metaformer.Attention] * 2,
        norm_layers=[timm_metaformer.LayerNorm2dNoBias] * 2 + [timm_metaformer.LayerNormNoBias] * 2,
    ),
}
families = pytest.mark.parametrize('family', PARAMS)
variants = pytest.mark.parametrize(('family', 'arch'), [(family, arch) for family in PARAMS for arch in PARAMS[family]])


@cache
def on_meta(family: str, arch: str) -> MetaFormer:
    with torch.device('meta'):
        return getattr(backbones, family)(arch, out_norm=False)


@cache
def timm_on_meta(family: str, arch: str) -> nn.Module:
    """timm lacks two families; all but their mixers is PoolFormerV2's."""
    with torch.device('meta'):
        return timm.create_model(f'{family.lower() if family in IN_TIMM else "poolformerv2"}_{arch}')


def randomised(model: nn.Module) -> nn.Module:
    """Norms, scales and biases start at ones and zeros, and layers small: neither would show what they do."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.mul_(0.7).add_(torch.randn_like(p), alpha=0.2)  # around 0.7: features keep order 1
            else:
                p.normal_(std=p[0].numel() ** -0.5)
    return model.eval()


def to_official(key: str) -> str:
    """Our (timm's) name of a weight -> its name in sail-sg/metaformer."""
    key = key.replace('stem.norm', 'downsample_layers.0.post_norm').replace('stem.', 'downsample_layers.0.')
    key = re.sub(r'stages\.(\d)\.downsample', r'downsample_layers.\1', key)
    key = re.sub(r'(downsample_layers\.[123])\.norm', r'\1.pre_norm', key)
    key = key.replace('.blocks.', '.').replace('head.norm', 'norm')
    return key.replace('head.fc', 'head')


def official_random(x: Tensor, matrix: Tensor) -> Tensor:
    """RandomMixing of metaformer_baselines.py in each window of its own size, one after the other."""
    side = int(len(matrix) ** 0.5)
    out = torch.empty_like(x)
    for top in range(0, x.shape[1], side):
        for left in range(0, x.shape[2], side):
            part = x[:, top : top + side, left : left + side]
            height, width = part.shape[1:3]
            window = F.pad(part, (0, 0, 0, side - width, 0, side - height))
            mixed = torch.einsum('mn,bnc->bmc', matrix, window.flatten(1, 2)).reshape(window.shape)
            out[:, top : top + side, left : left + side] = mixed[:, :height, :width]
    return out


def official_maps(weights: Mapping[str, Tensor], image: Tensor) -> list[Tensor]:
    """IdentityFormer and RandFormer by metaformer_baselines.py: blocks that have a `random_matrix` mix."""

    def norm(x: Tensor, key: str, dims: tuple[int, ...]) -> Tensor:
        centred = x - x.mean(dims, keepdim=True)
        return centred / (centred.pow(2).mean(dims, keepdim=True) + 1e-6).sqrt() * weights[key]

    def mlp(x: Tensor, key: str) -> Tensor:
        x = F.relu(x @ weights[f'{key}.fc1.weight'].T) ** 2
        return (weights[f'{key}.act.scale'] * x + weights[f'{key}.act.bias']) @ weights[f'{key}.fc2.weight'].T

    x, maps = image, []
    for i in range(4):
        down = f'downsample_layers.{i}'
        if i:
            x = norm(x, f'{down}.pre_norm.weight', (-1,)).permute(0, 3, 1, 2)
        stride, padding = (2, 1) if i else (4, 2)
        x = F.conv2d(x, weights[f'{down}.conv.weight'], weights[f'{down}.conv.bias'], stride, padding)
        x = x.permute(0, 2, 3, 1)
        if not i:
            x = norm(x, f'{down}.post_norm.weight', (-1,))
        depth = sum(bool(re.fullmatch(rf'stages\.{i}\.\d+\.norm1\.weight', k)) for k in weights)
        for block in (f'stages.{i}.{j}' for j in range(depth)):
            mixed = norm(x, f'{block}.norm1.weight', (1, 2, 3))
            if f'{block}.token_mixer.random_matrix' in weights:
                mixed = official_random(mixed, weights[f'{block}.token_mixer.random_matrix'])
            x = x * weights.get(f'{block}.res_scale1.scale', 1) + mixed
            mixed = mlp(norm(x, f'{block}.norm2.weight', (1, 2, 3)), f'{block}.mlp')
            x = x * weights.get(f'{block}.res_scale2.scale', 1) + mixed
        maps.append(x.permute(0, 3, 1, 2))
    return maps


def reference(family: str, arch: str | dict) -> tuple[dict[str, Tensor], Callable[[Tensor], list[Tensor]]]:
    """Random weights and what makes maps of them, in float64: timm's own, or official ones and the formulas."""
    if family in IN_TIMM:
        if isinstance(arch, str):
            theirs = timm.create_model(f'{family.lower()}_{arch}')
        else:
            theirs = timm_metaformer.MetaFormer(**arch, **IN_TIMM[family], num_classes=10)
        theirs = randomised(theirs).double()
        weights = dict(theirs.named_parameters())
        return weights, lambda image: theirs.forward_intermediates(image.double(), intermediates_only=True)
    source = randomised(build(family, arch)).double()
    weights = {to_official(k): v.requires_grad_() for k, v in source.state_dict().items()}
    classifier = {'norm.weight': torch.ones(8), 'head.weight': torch.ones(10, 8)}
    return weights | classifier, lambda image: official_maps(weights, image.double())


def build(family: str, arch: str | dict, init_cfg: dict | None = None) -> MetaFormer:
    size = 224 if isinstance(arch, str) else 64
    return getattr(backbones, family)(arch, out_norm=False, pretrain_img_size=size, init_cfg=init_cfg).eval()


def assert_same_features(family: str, arch: str | dict, size: tuple[int, int], folder: Path) -> None:
    """Through our loader, at a size padded to a multiple of 4 by hand where the reference's stem would lose pixels.

    The function is compared in fp64, and in fp32 to 1e-5. Random layers of full depth under joint norms cost more
    digits, here and in timm (single tokens stand out, and StarReLU squares them): 1e-5 of the largest feature there.
    """
    weights, their_maps = reference(family, arch)
    torch.save({'state_dict': {k: v.detach().float() for k, v in weights.items()}}, folder / 'weights.pth')
    ours = build(family, arch, dict(type='Pretrained', checkpoint=str(folder / 'weights.pth')))
    ours.init_weights()
    image = torch.randn(1, 3, *size)
    down, right = (-s % 4 if s % 4 in (1, 2) else 0 for s in size)
    with torch.no_grad():
        theirs = their_maps(F.pad(image, (0, right, 0, down)))
        for single, double, expected in zip(ours(image), ours.double()(image.double()), theirs, strict=True):
            assert 0.2 < expected.std() < 4, 'features of order 1'
            torch.testing.assert_close(double, expected, rtol=0, atol=1e-10)
            largest = expected.abs().max().item() if ours.norm is metaformer.JointNorm and arch is not TINY else 1
            torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5 * largest)


def test_no_arch_is_untested() -> None:
    for table in (PARAMS, PUBLISHED):
        assert {k: set(v) for k, v in table.items()} == {k: set(v) for k, v in metaformer.ARCHS.items()}
    assert FROZEN.keys() == metaformer.ARCHS['RandFormer'].keys()


@variants
def test_golden_counts(family: str, arch: str) -> None:
    count = sum(p.numel() for p in on_meta(family, arch).parameters())
    assert count == PARAMS[family][arch]
    classifier = sum(p.numel() for p in timm_on_meta(family, arch).head.parameters())
    decimals = len(PUBLISHED[family][arch].partition('.')[2])
    assert f'{(count + classifier) / 1e6:.{decimals}f}' == PUBLISHED[family][arch]


@pytest.mark.parametrize('arch', FROZEN)
def test_random_matrices_are_counted_apart(arch: str) -> None:
    buffers = dict(on_meta('RandFormer', arch).named_buffers())
    found = {(k[7], k.rpartition('.')[2], *b.shape) for k, b in buffers.items()}
    assert found == {('2', 'random_matrix', 196, 196), ('3', 'random_matrix', 49, 49)}  # of stages.2 and stages.3
    assert f'{sum(b.numel() for b in buffers.values()) / 1e6:.1f}' == FROZEN[arch]


@pytest.mark.parametrize(('family', 'arch'), [(family, arch) for family in GMACS for arch in GMACS[family]])
def test_gmacs_are_the_published(family: str, arch: str) -> None:
    """Ours lack the classifier (below 0.01) and count the products of attention and of the random matrices."""
    with FlopCounterMode(display=False) as counter:
        on_meta(family, arch)(torch.empty(1, 3, 224, 224, device='meta'))
    assert counter.get_total_flops() / 2e9 == pytest.approx(GMACS[family][arch], rel=0.03)


@variants
def test_full_size_weights_of_both_layouts_fit(family: str, arch: str) -> None:
    def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {k: tuple(v.shape) for k, v in weights.items() if not k.startswith(MetaFormer.ignored_keys)}

    ours, theirs = on_meta(family, arch), timm_on_meta(family, arch)
    weights = theirs.state_dict()
    official = {to_official(k): v for k, v in weights.items()}
    # back again by timm's own reading of official files
    assert timm_metaformer.checkpoint_filter_fn(official, theirs).keys() == weights.keys()
    matrices = {to_official(k): v for k, v in ours.named_buffers()}  # RandFormer's, which timm lacks
    for layout in (weights, official):
        assert shapes(ours._convert(layout | matrices)) == shapes(ours.state_dict())


@families
def test_full_size_features_at_224(tmp_path: Path, family: str) -> None:
    assert_same_features(family, next(iter(PARAMS[family])), (224, 224), tmp_path)


@families
@pytest.mark.parametrize('size', [(64, 64), (96, 160), (67, 127), (32, 52), (37, 142)])
def test_features_at_any_size(tmp_path: Path, family: str, size: tuple[int, int]) -> None:
    """RandFormer mixes 4x4 and 2x2 tokens (trained at 64): here in one window, in whole ones and in cropped ones."""
    assert_same_features(family, TINY, size, tmp_path)


@families
def test_gradients(family: str) -> None:
    weights, their_maps = reference(family, TINY)
    ours = build(family, TINY)
    ours.load_pretrained(weights)
    image = torch.randn(2, 3, 64, 96)
    for maps in (ours(image), their_maps(image)):
        sum(m.square().mean() for m in maps).backward()
    for name, p in ours.named_parameters():
        theirs = weights[name if family in IN_TIMM else to_official(name)]
        torch.testing.assert_close(p.grad, theirs.grad.view(p.shape), rtol=1e-4, atol=1e-5, check_dtype=False)


def test_drop_path_rates_are_timms() -> None:
    theirs = timm_metaformer.MetaFormer(**TINY, **IN_TIMM['ConvFormer'], drop_path_rate=0.3)
    ours = ConvFormer(TINY, drop_path_rate=0.3)
    expected = [getattr(b.drop_path1, 'drop_prob', 0.0) for stage in theirs.stages for b in stage.blocks]
    assert [b.drop_path.rate for stage in ours.stages for b in stage['blocks']] == pytest.approx(expected)


def test_a_random_matrix_is_a_softmax() -> None:
    matrix = RandomMixing(8, 7).random_matrix
    torch.testing.assert_close(matrix.sum(1), torch.ones(49))
    assert (matrix.amax(1) / matrix.amin(1) < 2.7183).all()  # exp of numbers in [0, 1)


def test_a_new_mixer_is_a_class_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shift(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            return x.roll(1, dims=1)

    monkeypatch.setitem(MIXERS, 'shift', Shift)
    for mixers in (['shift'] * 4, ['sep_conv', 'shift', 'random', 'attention']):
        maps = CAFormer(TINY, mixers=mixers)(torch.randn(1, 3, 50, 64))
        assert [tuple(m.shape[1:]) for m in maps] == [(16, 13, 16), (32, 7, 8), (64, 4, 4), (96, 2, 2)]


def test_wrong_arguments_are_named() -> None:
    for match, wrong in (
        ("mixers must be 4 of .*'sep_conv'.*, got \\('conv',", dict(mixers=['conv'] * 4)),
        ('mixers must be 4 of', dict(mixers=['pool'] * 3)),
        ('depths and dims must have 4 entries', dict(arch=dict(depths=[1, 1], dims=[32, 64]))),
        ('heads of 32 channels: its width must be a multiple, got 80', dict(arch={**TINY, 'dims': [16, 32, 80, 96]})),
        ("arch must be one of \\['b36', 'm36', 's18', 's36'\\] or a dict, got 's12'", dict(arch='s12')),
    ):
        with pytest.raises(ValueError, match=match):
            CAFormer(**{'arch': TINY, **wrong})


def test_weights_of_another_model_are_named() -> None:
    weights = ConvFormer(TINY).state_dict()
    with pytest.raises(UsageError, match=r'stages.2.blocks.0.token_mixer.qkv.weight.*token_mixer.pwconv1.weight'):
        CAFormer(TINY).load_pretrained(weights)
    with pytest.raises(UsageError, match=r'11 unknown: stages.1.blocks.1.norm1.weight, .* and 8 more'):
        ConvFormer({**TINY, 'depths': [1, 1, 2, 1]}).load_pretrained(weights)
    with pytest.raises(UsageError, match='unknown: .*layer_scale1.scale'):  # the first PoolFormer
        PoolFormerV2('s12').load_pretrained(timm.create_model('poolformer_s12').state_dict())
    with pytest.raises(UsageError, match=r'random_matrix \(196, 196\) for \(16, 16\)'):
        RandFormer(TINY, pretrain_img_size=64).load_pretrained(RandFormer(TINY).state_dict())
    with pytest.raises(UsageError, match=r'unknown: .*random_matrix'):
        IdentityFormer(TINY).load_pretrained(RandFormer(TINY).state_dict())
