"""T2T-ViT with a transformer T2T module against mmpretrain's, with the same weights through our own loader."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.t2t_official import TINY, assert_same, build, random_weights
from torch import Tensor, nn

from mmseg_volo.models.backbones.t2t_vit import ARCHS, T2TViT


def mmpretrain_t2t(*args, **kwargs) -> nn.Module:
    """Imported when first asked for: the import takes seconds."""
    return pytest.importorskip('mmpretrain.models.backbones').T2T_ViT(*args, **kwargs)


def mmpretrain_twin(img_size: int, arch: dict) -> nn.Module:
    """mmpretrain's, with random weights and the scale of the attentions mended.

    mmpretrain 1.x divides the logits by head_dim^-0.5 (its scaled_dot_product_attention_pyimpl takes a divisor) and
    drops the qk_scale that it is given; the official code, and mmpretrain's own docstring, multiply by input_dim^-0.5.
    """
    depth, heads, dim = sum(arch['depths']), arch['num_heads'], arch['dim']
    model = mmpretrain_t2t(
        img_size,
        embed_dims=dim,
        num_layers=depth,
        out_indices=[arch['depths'][0] - 1, depth - 1],
        out_type='featmap',
        final_norm=False,
        t2t_cfg=dict(token_dims=arch['token_dim']),
        layer_cfgs=dict(num_heads=heads, feedforward_channels=3 * dim),
    )
    for layer in [model.tokens_to_token.attention1, model.tokens_to_token.attention2, *model.encoder]:
        scale = (layer.attn.input_dims // layer.attn.num_heads) ** -0.5
        layer.attn.scaled_dot_product_attention = partial(F.scaled_dot_product_attention, scale=scale)
    table = {'pos_embed': model.pos_embed}
    model.load_state_dict(random_weights({k: v.shape for k, v in model.state_dict().items()}) | table)
    model.eval()  # which gives nothing back there
    return model


def mmpretrain_maps(model: nn.Module, image: Tensor) -> list[Tensor]:
    tokens: list[Tensor] = []
    layers = (model.tokens_to_token.attention1, model.tokens_to_token.attention2)
    hooks = [layer.register_forward_hook(lambda module, inputs, out: tokens.append(out)) for layer in layers]
    maps = model(image)
    for hook in hooks:
        hook.remove()
    sizes = [[side // stride for side in image.shape[2:]] for stride in (4, 8)]
    return [t.mT.unflatten(2, size) for t, size in zip(tokens, sizes, strict=True)] + list(maps)


def test_t_14_has_mmpretrains_features_at_224(tmp_path: Path) -> None:
    theirs = mmpretrain_twin(224, vars(ARCHS['t_14']))
    weights = {f'backbone.{k}': v for k, v in theirs.state_dict().items()} | {'head.layers.head.weight': torch.ones(1)}
    torch.save({'state_dict': weights}, tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'), prefix='backbone.')
    ours = T2TViT('t_14', out_norm=False, init_cfg=init_cfg).eval()
    assert_same([ours.pos_embed], [theirs.pos_embed])  # made by us, before anything is loaded
    ours.init_weights()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert_same(ours(image), mmpretrain_maps(theirs, image))


@pytest.mark.parametrize('size', [(64, 64), (96, 160)])
def test_tiny_has_mmpretrains_features_and_gradients(size: tuple[int, int], tmp_path: Path) -> None:
    arch = dict(TINY, tokens_type='transformer')
    theirs = mmpretrain_twin(64, arch)
    ours = build(arch, theirs.state_dict(), tmp_path).train()
    image = torch.randn(2, 3, *size)
    maps, reference = ours(image), mmpretrain_maps(theirs, image)
    assert_same(maps, reference)
    for outputs in (maps, reference):
        sum(m.square().mean() for m in outputs).backward()
    gradients = ours._convert({n: p.grad for n, p in theirs.named_parameters()})
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize('arch', ['t_14', 't_19', 't_24'])
def test_mmpretrains_full_size_keys_map_both_ways(arch: str) -> None:
    row = ARCHS[arch]
    layer_cfgs = dict(num_heads=row.num_heads, feedforward_channels=int(row.mlp_ratio * row.dim))
    theirs = mmpretrain_t2t(embed_dims=row.dim, num_layers=sum(row.depths), layer_cfgs=layer_cfgs)
    shapes = {k: v.shape for k, v in theirs.state_dict().items()}
    with torch.device('meta'):
        ours = T2TViT(arch, out_norm=False)
    own = {k: v.shape for k, v in ours.state_dict().items()}
    converted = {k: v.shape for k, v in ours._convert(theirs.state_dict()).items()}
    assert {k: v for k, v in converted.items() if not k.startswith('norm.')} == own
    names = {'norm1': 'ln1', 'norm2': 'ln2', 'blocks': 'encoder'}
    names |= {'mlp.fc1': 'ffn.layers.0.0', 'mlp.fc2': 'ffn.layers.1'}
    back = {}
    for key, shape in own.items():
        for official, name in names.items():
            key = key.replace(official, name)
        back[key] = shape
    assert back == {k: v for k, v in shapes.items() if not k.startswith('norm.')}
