"""T2T-ViT as its official code has it: keys and shapes of its files, and its formulas in float64."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_volo.models.backbones.t2t_vit import Arch, T2TViT

TINY = dict(depths=[2, 1], dim=32, num_heads=2, token_dim=16)


def official_shapes(row: Arch, img_size: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an official file, written from yitu-opensource/T2T-ViT, models/."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out_dim: int, in_dim: int, bias: bool = True) -> None:
        shapes.update({f'{name}.weight': (out_dim, in_dim)} | ({f'{name}.bias': (out_dim,)} if bias else {}))

    def norm(name: str, dim: int) -> None:
        shapes.update({f'{name}.weight': (dim,), f'{name}.bias': (dim,)})

    t, c = row.token_dim, row.dim
    for name, patch in (('tokens_to_token.attention1', 147), ('tokens_to_token.attention2', 9 * t)):
        norm(f'{name}.norm1', patch)
        norm(f'{name}.norm2', t)
        if row.tokens_type == 'performer':
            shapes[f'{name}.w'] = (t // 2, t)
            linear(f'{name}.kqv', 3 * t, patch)
        else:
            linear(f'{name}.attn.qkv', 3 * t, patch, bias=False)
        linear(f'{name}.proj' if row.tokens_type == 'performer' else f'{name}.attn.proj', t, t)
        for part in ('0', '2') if row.tokens_type == 'performer' else ('fc1', 'fc2'):
            linear(f'{name}.mlp.{part}', t, t)
    linear('tokens_to_token.project', c, 9 * t)
    shapes |= {'cls_token': (1, 1, c), 'pos_embed': (1, 1 + (img_size // 16) ** 2, c)}
    for i in range(sum(row.depths)):
        norm(f'blocks.{i}.norm1', c)
        norm(f'blocks.{i}.norm2', c)
        linear(f'blocks.{i}.attn.qkv', 3 * c, c, bias=False)
        linear(f'blocks.{i}.attn.proj', c, c)
        linear(f'blocks.{i}.mlp.fc1', int(row.mlp_ratio * c), c)
        linear(f'blocks.{i}.mlp.fc2', c, int(row.mlp_ratio * c))
    norm('norm', c)
    linear('head', 1000, c)
    return shapes


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """No weight at its initial value; outputs of order 1."""
    weights = {}
    for key, shape in shapes.items():
        weights[key] = torch.randn(shape) * (0.7 * shape[-1] ** -0.5 if len(shape) == 2 else 0.2)
        if 'norm' in key and key.endswith('weight'):
            weights[key] += 1
        if key.endswith('.w'):
            weights[key] = torch.linalg.qr(torch.randn(shape).mT)[0].mT * shape[0] ** 0.5
        if '.kqv.' in key:  # exp(-|k|^2 / 2) stays well above the 1e-8 that its sums are divided with
            weights[key][: 2 * len(weights[key]) // 3] *= 0.5
    return weights


class Reference:
    """The official formulas, one after the other, with whole attention matrices, in float64."""

    def __init__(self, weights: dict[str, Tensor], row: Arch):
        self.weights = {k: v.double() for k, v in weights.items()}
        self.row = row

    def linear(self, name: str, x: Tensor) -> Tensor:
        x = x @ self.weights[f'{name}.weight'].T
        return x + self.weights[f'{name}.bias'] if f'{name}.bias' in self.weights else x

    def norm(self, name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        return x * self.weights[f'{name}.weight'] + self.weights[f'{name}.bias']

    def mlp(self, name: str, parts: tuple[str, str], x: Tensor) -> Tensor:
        first, second = parts
        return self.linear(f'{name}.mlp.{second}', F.gelu(self.linear(f'{name}.mlp.{first}', x)))

    def features(self, name: str, x: Tensor) -> Tensor:
        w = self.weights[f'{name}.w']
        return torch.exp(x @ w.T - x.square().sum(-1, keepdim=True) / 2) / len(w) ** 0.5

    def performer(self, name: str, x: Tensor) -> Tensor:
        k, q, v = self.linear(f'{name}.kqv', self.norm(f'{name}.norm1', x)).chunk(3, -1)
        kernel = self.features(name, q) @ self.features(name, k).mT
        x = v + self.linear(f'{name}.proj', (kernel @ v) / (kernel.sum(-1, keepdim=True) + 1e-8))
        return x + self.mlp(name, ('0', '2'), self.norm(f'{name}.norm2', x))

    def transformer(self, name: str, x: Tensor) -> Tensor:
        patch = x.shape[-1]
        q, k, v = self.linear(f'{name}.attn.qkv', self.norm(f'{name}.norm1', x)).chunk(3, -1)
        x = v + self.linear(f'{name}.attn.proj', (patch**-0.5 * q @ k.mT).softmax(-1) @ v)
        return x + self.mlp(name, ('fc1', 'fc2'), self.norm(f'{name}.norm2', x))

    def block(self, name: str, x: Tensor) -> Tensor:
        q, k, v = self.linear(f'{name}.attn.qkv', self.norm(f'{name}.norm1', x)).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (self.row.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = (q.shape[-1] ** -0.5 * q @ k.mT).softmax(-1) @ v
        x = x + self.linear(f'{name}.attn.proj', mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(name, ('fc1', 'fc2'), self.norm(f'{name}.norm2', x))

    def positions(self, height: int, width: int) -> Tensor:
        table = self.weights['pos_embed']
        side = round((table.shape[1] - 1) ** 0.5)
        grid = table[:, 1:].mT.unflatten(2, (side, side))
        if (height, width) != (side, side):
            grid = F.interpolate(grid, (height, width), mode='bicubic')
        return torch.cat((table[:, :1], grid.flatten(2).mT), 1)

    def maps(self, image: Tensor) -> list[Tensor]:
        x, maps = image.double(), []
        layer = getattr(self, self.row.tokens_type)
        for i, (kernel, stride, padding) in enumerate(((7, 4, 2), (3, 2, 1))):
            size = [side // stride for side in x.shape[2:]]
            x = layer(f'tokens_to_token.attention{i + 1}', F.unfold(x, kernel, 1, padding, stride).mT)
            x = x.mT.unflatten(2, size)
            maps.append(x)
        size = [side // 2 for side in x.shape[2:]]
        x = self.linear('tokens_to_token.project', F.unfold(x, 3, 1, 1, 2).mT)
        x = torch.cat((self.weights['cls_token'].expand(len(x), -1, -1), x), 1) + self.positions(*size)
        for i in range(sum(self.row.depths)):
            x = self.block(f'blocks.{i}', x)
            if i + 1 in (self.row.depths[0], sum(self.row.depths)):
                maps.append(x[:, 1:].mT.unflatten(2, size))
        return maps


def build(arch: str | dict, weights: dict[str, Tensor], folder: Path, img_size: int = 64, **arguments) -> T2TViT:
    """Ours with these weights, read from a file as the official ones are."""
    torch.save({'state_dict_ema': weights}, folder / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(folder / 'weights.pth'))
    model = T2TViT(arch, out_norm=False, pretrain_img_size=img_size, init_cfg=init_cfg, **arguments).eval()
    model.init_weights()
    return model


def assert_same(ours: tuple[Tensor, ...], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.to(a.dtype), rtol=0, atol=1e-5)
