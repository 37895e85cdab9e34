"""T2T-ViT against the official formulas in float64, with the same weights through our own loader, and its counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from t2t_official import TINY, Reference, assert_same, build, official_shapes, random_weights
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_volo.errors import UsageError
from mmseg_volo.models.backbones import t2t_vit
from mmseg_volo.models.backbones.t2t_vit import PerformerLayer, T2TViT

# parameters of the four stages without out_norms, final norm, head, and what is fixed (pos_embed, random features)
PARAMS = {
    '7': 3_998_182,
    '10': 5_577_190,
    '12': 6_629_862,
    '14': 21_080_038,
    '19': 38_635_174,
    '24': 63_486_950,
    't_14': 21_079_654,
    't_19': 38_634_790,
    't_24': 63_486_566,
}
# in millions, classifier and what is fixed included, and GMACs at 224 (tables of the paper, README of the repository)
PUBLISHED = {
    '7': (4.3, 1.1),
    '10': (5.9, 1.5),
    '12': (6.9, 1.8),
    '14': (21.5, 4.8),
    '19': (39.2, 8.5),
    '24': (64.1, 13.8),
    't_14': (21.5, 6.1),
    't_19': (39.2, 9.8),
    't_24': (64.1, 15.0),
}
KINDS = ('performer', 'transformer')
kind = pytest.mark.parametrize('tokens_type', KINDS)


def test_no_arch_is_untested() -> None:
    assert PARAMS.keys() == PUBLISHED.keys() == t2t_vit.ARCHS.keys()


@pytest.mark.parametrize('arch', t2t_vit.ARCHS)
def test_golden_counts(arch: str) -> None:
    with torch.device('meta'):
        model = T2TViT(arch, out_norm=False).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    count = sum(p.numel() for p in model.parameters())
    assert count == PARAMS[arch]
    params, gmacs = PUBLISHED[arch]
    dim, fixed = model.out_channels[-1], sum(b.numel() for b in model.buffers())
    total = count + fixed + 2 * dim + 1001 * dim + 1000 - dim
    assert total / 1e6 == pytest.approx(params, abs=0.05)
    if arch == '14':
        assert total == 21_545_550  # what the official training script logs (yitu-opensource/T2T-ViT, issue 19)
    # printed with one decimal: 3 %, or half of the last one
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.03, abs=0.05)


@pytest.mark.parametrize('img_size', [224, 384])
@pytest.mark.parametrize('arch', t2t_vit.ARCHS)
def test_full_size_keys_and_shapes_are_the_official_ones(arch: str, img_size: int) -> None:
    with torch.device('meta'):
        ours = T2TViT(arch, out_norm=False, pretrain_img_size=img_size)
    official = official_shapes(t2t_vit.ARCHS[arch], img_size)
    kept = {k: torch.Size(v) for k, v in official.items() if not k.startswith(T2TViT.ignored_keys)}
    assert {k: v.shape for k, v in ours.state_dict().items()} == kept


@pytest.mark.parametrize('arch', ['7', 't_14'])
def test_named_variants_at_224_follow_the_official_formulas(arch: str, tmp_path: Path) -> None:
    weights = random_weights(official_shapes(t2t_vit.ARCHS[arch], 224))
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        ours = build(arch, weights, tmp_path, 224)(image)
        assert_same(ours, Reference(weights, t2t_vit.ARCHS[arch]).maps(image))


@kind
@pytest.mark.parametrize('size', [(64, 64), (96, 64), (128, 176), (37, 141)])
def test_any_size_follows_the_official_formulas(tokens_type: str, size: tuple[int, int], tmp_path: Path) -> None:
    row = t2t_vit.Arch(**TINY, tokens_type=tokens_type)
    weights = random_weights(official_shapes(row, 64))
    image = torch.randn(2, 3, *size)
    padded = F.pad(image, (0, -size[1] % 16, 0, -size[0] % 16))
    with torch.no_grad():
        ours = build(dict(TINY, tokens_type=tokens_type), weights, tmp_path)(image)
        theirs = Reference(weights, row).maps(padded)
    cropped = [m[..., : -(-size[0] // s), : -(-size[1] // s)] for m, s in zip(theirs, (4, 8, 16, 16), strict=True)]
    assert_same(ours, cropped)


@kind
def test_gradients_follow_the_official_formulas(tokens_type: str, tmp_path: Path) -> None:
    row = t2t_vit.Arch(**TINY, tokens_type=tokens_type)
    weights = random_weights(official_shapes(row, 64))
    ours = build(dict(TINY, tokens_type=tokens_type), weights, tmp_path, with_cp=True).train()
    reference = Reference(weights, row)
    for w in reference.weights.values():
        w.requires_grad_()
    image = torch.randn(2, 3, 64, 64)
    for maps in (ours(image), reference.maps(image)):
        sum(m.square().mean() for m in maps).backward()
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, reference.weights[name].grad.float(), rtol=1e-4, atol=1e-5, msg=name)


def test_the_performer_in_the_tests_is_not_degenerate() -> None:
    """Were its features to underflow, the attention would be zero on both sides of the parity tests."""
    row = t2t_vit.ARCHS['7']
    reference = Reference(random_weights(official_shapes(row, 224)), row)
    name, tokens = 'tokens_to_token.attention1', torch.randn(1, 100, 147, dtype=torch.float64)
    k, q, _ = reference.linear(f'{name}.kqv', reference.norm(f'{name}.norm1', tokens)).chunk(3, -1)
    kernel = reference.features(name, q) @ reference.features(name, k).mT
    assert kernel.sum(-1).min() > 1e-4  # far above 1e-8
    assert kernel.std() > 0.1 * kernel.mean()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('size_of_kq', [0.3, 1.0, 10.0, 1000.0])
def test_performer_is_right_under_autocast(dtype: torch.dtype, size_of_kq: float) -> None:
    """|k|^2 / 2 from 3 to 3e7: beyond 65504 it is infinite in fp16, beyond 18 exp(-|k|^2 / 2) is zero there."""
    layer = PerformerLayer(147, 64, (7, 4, 2))
    layer.kqv.weight.data[:128] *= size_of_kq / (layer.kqv.weight[:128].std() * 147**0.5)
    layer.kqv.weight.data[128:] *= 1 / (layer.kqv.weight[128:].std() * 147**0.5)
    image = 1000 * torch.randn(1, 3, 64, 96)
    exact = layer.double()(image.double())
    with torch.autocast('cpu', dtype):
        rounded = layer.float()(image)
    assert rounded.isfinite().all()
    assert (rounded - exact).abs().max() < 4 * torch.finfo(dtype).eps * exact.abs().max()
    rounded.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@kind
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_whole_network_under_autocast(tokens_type: str, dtype: torch.dtype, tmp_path: Path) -> None:
    row = t2t_vit.Arch(**TINY, tokens_type=tokens_type)
    model = build(dict(TINY, tokens_type=tokens_type), random_weights(official_shapes(row, 64)), tmp_path)
    image = torch.randn(1, 3, 75, 96)
    with torch.no_grad():
        exact = model(image)
        with torch.autocast('cpu', dtype):
            rounded = model(image)
    for a, b in zip(exact, rounded, strict=True):
        assert (a - b.float()).abs().max() < 8 * torch.finfo(dtype).eps * a.abs().max()


MEASURE = """
import resource, torch
from mmseg_volo.models.backbones.t2t_vit import TransformerLayer
layer = TransformerLayer(147, 64, (7, 4, 2))
layer(torch.randn(1, 3, 64, 64)).sum().backward()
image = torch.randn(1, 3, 512, 512)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layer(image).sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='ru_maxrss is in KiB on Linux')
def test_the_attention_matrix_is_not_built() -> None:
    """16,384 tokens at 512x512: the matrix alone would take 1024 MiB in the forward and again in the backward."""
    run = subprocess.run([sys.executable, '-c', MEASURE], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 256


def test_transformer_shares_the_contract() -> None:
    """What tests/test_backbones.py asks of the Performer: no graph break, recomputation, one channel."""
    model = T2TViT(dict(TINY, tokens_type='transformer'), pretrain_img_size=64).eval()
    image = torch.randn(1, 3, 75, 96)
    with torch.no_grad():
        compiled = torch.compile(model, backend='eager', fullgraph=True)(image)
        assert_same(compiled, list(model(image)))
    grey = T2TViT(dict(TINY, tokens_type='transformer'), pretrain_img_size=64, in_channels=1).eval()
    grey.load_pretrained(model.state_dict())
    assert_same(grey(image[:, :1]), list(model(image[:, :1].expand(-1, 3, -1, -1))))


@kind
@pytest.mark.parametrize('channels', [2, 4])
def test_first_norm_is_adapted_too(tokens_type: str, channels: int) -> None:
    row = t2t_vit.Arch(**TINY, tokens_type=tokens_type)
    weights = random_weights(official_shapes(row, 64))
    model = T2TViT(dict(TINY, tokens_type=tokens_type), pretrain_img_size=64, in_channels=channels)
    model.load_pretrained(weights)
    for end in ('weight', 'bias'):
        rgb = weights[f'tokens_to_token.attention1.norm1.{end}']
        ours = model.state_dict()[f'tokens_to_token.attention1.norm1.{end}']
        torch.testing.assert_close(ours, rgb.repeat(2)[: 49 * channels])


def test_first_layer_is_recomputed_too() -> None:
    """Its input, the image, asks for no gradient, yet it holds the longest sequence of the network."""
    model = T2TViT(TINY, pretrain_img_size=64, with_cp=True).train()
    calls: list[nn.Module] = []
    model.tokens_to_token['attention1'].register_forward_pre_hook(lambda module, inputs: calls.append(module))
    sum(m.mean() for m in model(torch.randn(1, 3, 64, 64))).backward()
    assert len(calls) == 2


def test_positions_are_resized_not_made_anew() -> None:
    model = T2TViT(TINY, pretrain_img_size=64, out_norm=False).eval()
    constant = torch.zeros(1, 3, 128, 192)
    with torch.no_grad():
        model.pos_embed[:, 1:] = torch.linspace(-1, 1, 4).repeat(4).view(1, -1, 1)  # grows along x
        embedded = model._embed(model.tokens_to_token['attention2'](model.tokens_to_token['attention1'](constant)))
    rows = embedded[0, 0, 1:].unflatten(0, (8, 12))[2:-2, 2:-2].mean(-1)
    assert (rows.diff(dim=1) > 0).all()
    torch.testing.assert_close(rows, rows[:1].expand_as(rows), rtol=0, atol=1e-4)


def test_what_does_not_fit_is_named() -> None:
    row = t2t_vit.Arch(**TINY)
    weights = random_weights(official_shapes(row, 64))
    with pytest.raises(ValueError, match='pos_embed .* set pretrain_img_size'):
        T2TViT(TINY, pretrain_img_size=128).load_pretrained(weights)
    with pytest.raises(UsageError, match='missing: tokens_to_token.attention1.attn.qkv.weight'):
        T2TViT(dict(TINY, tokens_type='transformer'), pretrain_img_size=64).load_pretrained(weights)
    for wrong in (dict(tokens_type='convolution'), dict(depths=[3]), dict(num_heads=5)):
        with pytest.raises(ValueError, match='a tokens_type of .*, two depths, and a dim that divides into its heads'):
            T2TViT(TINY | wrong)
