"""Define T2T-ViT (arXiv 2101.11986, yitu-opensource/T2T-ViT): two stages of token layers and two of blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmseg_volo.models.backbones.base import Backbone, adapt_stem, resolve_arch
from mmseg_volo.models.backbones.layers import Attention, Block, Mlp, init_truncated_normal, resize_grid


@dataclass(frozen=True)
class Arch:
    """One variant of models/t2t_vit.py in the official repository."""

    depths: Sequence[int]  # blocks of stages 2 and 3; the paper's depth is their sum
    dim: int  # channels of the blocks
    num_heads: int
    mlp_ratio: float = 3.0
    tokens_type: str = 'performer'  # attention of the T2T module, or 'transformer'
    token_dim: int = 64  # channels of stages 0 and 1


ARCHS = {
    '7': Arch((3, 4), 256, 4, mlp_ratio=2.0),
    '10': Arch((5, 5), 256, 4, mlp_ratio=2.0),
    '12': Arch((6, 6), 256, 4, mlp_ratio=2.0),
    '14': Arch((7, 7), 384, 6),
    '19': Arch((9, 10), 448, 7),
    '24': Arch((12, 12), 512, 8),
    't_14': Arch((7, 7), 384, 6, tokens_type='transformer'),
    't_19': Arch((9, 10), 448, 7, tokens_type='transformer'),
    't_24': Arch((12, 12), 512, 8, tokens_type='transformer'),
}
STRIDES = (4, 8, 16, 16)
SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))  # kernel, stride, padding of the three soft splits
RGB_PATCH = 3 * 7 * 7
# mmpretrain's names -> the official ones, which are ours
MMPRETRAIN = {'.ln1.': '.norm1.', '.ln2.': '.norm2.', '.ffn.layers.0.0.': '.mlp.fc1.', '.ffn.layers.1.': '.mlp.fc2.'}


def soft_split(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Cut overlapping patches as tokens: (B, C, H, W) -> (B, H / stride * W / stride, C * kernel^2)."""
    return F.unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2)


def sinusoid(length: int, dim: int) -> Tensor:
    """Compute a position table (1, length, dim) (arXiv 1706.03762, section 3.5): even channels sine, odd cosine."""
    channel = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]


class TokenLayer(nn.Module):
    """Soft split, attention and MLP: (B, C, H, W) -> (B, token_dim, H / stride, W / stride).

    The attention maps patches of `dim` = C * kernel^2 values to `token_dim`. Its residual is its values, not its input,
    whose width differs.
    """

    mlp: nn.Module

    def __init__(self, dim: int, token_dim: int, split: tuple[int, int, int]):
        super().__init__()
        self.split = split
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(token_dim)

    def attend(self, x: Tensor) -> Tensor:
        """Map (B, N, dim) to (B, N, token_dim)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        size = [side // self.split[1] for side in x.shape[2:]]
        x = self.attend(self.norm1(soft_split(x, *self.split)))
        x = x + self.mlp(self.norm2(x))
        x = x.transpose(1, 2).unflatten(2, size)
        return x


class TokenAttention(nn.Module):
    """Single-head self-attention from `dim` to `token_dim` channels; adds its values to the result.

    The scale is dim^-0.5 as in the official token_transformer.py, not token_dim^-0.5. The N x N matrix is never built:
    at 1024x1024 (N = 65,536; the matrix would take 16 GiB) the first layer of t_14 takes 118 MiB forward and 419 MiB
    with backward (fp32, measured on a CPU).
    """

    def __init__(self, dim: int, token_dim: int):
        super().__init__()
        self.scale = dim**-0.5
        self.qkv = nn.Linear(dim, 3 * token_dim, bias=False)
        self.proj = nn.Linear(token_dim, token_dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, dim=-1)  # (B, 1, N, token_dim): fused kernels want four axes
        x = (v + self.proj(F.scaled_dot_product_attention(q, k, v, scale=self.scale))).squeeze(1)
        return x


class TransformerLayer(TokenLayer):
    """T2T layer of the t_* variants."""

    def __init__(self, dim: int, token_dim: int, split: tuple[int, int, int]):
        super().__init__(dim, token_dim, split)
        self.attn = TokenAttention(dim, token_dim)
        self.mlp = Mlp(token_dim, token_dim)

    def attend(self, x: Tensor) -> Tensor:
        x = self.attn(x)
        return x


class PerformerLayer(TokenLayer):
    """T2T layer of the other variants: linear attention by positive random features (arXiv 2009.14794, lemma 1).

    Features, sums and the quotient are fp32 (or wider) under autocast: exponents range from -1000s to 16.
    Deviation: the dropout of 0.1 that the official token_performer.py has after the projection and in the MLP is left
    out, so that training is deterministic if `drop_path_rate` is 0.
    """

    w: Tensor

    def __init__(self, dim: int, token_dim: int, split: tuple[int, int, int]):
        super().__init__(dim, token_dim, split)
        self.kqv = nn.Linear(dim, 3 * token_dim)
        self.proj = nn.Linear(token_dim, token_dim)
        self.mlp = nn.Sequential(nn.Linear(token_dim, token_dim), nn.GELU(), nn.Linear(token_dim, token_dim))
        features = token_dim // 2  # the official rows of w have length sqrt(features), those of FAVOR+ sqrt(dim)
        self.register_buffer('w', nn.init.orthogonal_(torch.empty(features, token_dim)) * math.sqrt(features))

    def _features(self, x: Tensor) -> Tensor:
        """Map (B, N, token_dim) to (B, N, token_dim / 2) features, whose products approximate exp(q k)."""
        exponent = F.linear(x, self.w.to(x.dtype)) - x.square().sum(-1, keepdim=True) / 2
        return exponent.exp() / math.sqrt(len(self.w))

    def attend(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(self.w.dtype, torch.float32)
        with torch.autocast('cpu' if x.is_meta else x.device.type, enabled=False):  # there is no autocast on meta
            k, q, v = self.kqv(x.to(self.w.dtype)).chunk(3, dim=-1)
            key, query = self._features(k.to(wide)), self._features(q.to(wide))
            total = query @ key.sum(1).unsqueeze(2)  # (B, N, 1)
            mean = query @ (key.transpose(1, 2) @ v.to(wide)) / (total + 1e-8)
        x = v + self.proj(mean.to(v.dtype))
        return x


TOKEN_LAYERS: dict[str, type[TokenLayer]] = {'performer': PerformerLayer, 'transformer': TransformerLayer}


@MODELS.register_module()
class T2TViT(Backbone):
    """T2T-ViT 7 to 24 and t_14 to t_24 as a backbone of four maps, at strides 4, 8, 16, 16.

    Stages 0 and 1 are the tokens of the T2T module, stages 2 and 3 the halves of the blocks, the last one before the
    network's final norm. The class token is part of the sequence, but not of the maps. Stochastic depth acts on
    the blocks only, as in the official code. The soft splits have no weights: `frozen_stages=0` freezes nothing.

    Deviation: the grid of the fixed position table is resized to the input in every forward pass, in the way the
    official code resizes it once, when it loads weights of another size (bicubic, not computed anew).

    Weights: the official files, or mmpretrain's (with `prefix='backbone.'`). For another `in_channels` the weights of
    the first norm are averaged (one channel) or repeated, those of the first projection adapted like a convolution's.

    Args:
        arch: '7', '10', '12', '14', '19', '24', 't_14', 't_19', 't_24', or a dict with the fields of `Arch`.

    The other arguments are those of `Backbone`.
    """

    ignored_keys = ('norm.', 'head.')

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        pretrain_img_size: int = 224,
        with_cp: bool = False,
        out_norm: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ):
        a = resolve_arch('T2TViT', ARCHS, arch)
        if a.tokens_type not in TOKEN_LAYERS or len(a.depths) != 2 or a.dim % a.num_heads:
            raise ValueError(
                f'T2TViT: an arch has a tokens_type of {sorted(TOKEN_LAYERS)}, two depths, '
                f'and a dim that divides into its heads, got {a}'
            )
        super().__init__(
            (a.token_dim, a.token_dim, a.dim, a.dim),
            STRIDES,
            out_indices=out_indices,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            frozen_stages=frozen_stages,
            pretrain_img_size=pretrain_img_size,
            with_cp=with_cp,
            out_norm=out_norm,
            init_cfg=init_cfg,
        )
        self.depths = tuple(a.depths)
        self.stem_key = f'tokens_to_token.attention1.{"kqv" if a.tokens_type == "performer" else "attn.qkv"}.weight'
        self._build_tokens(a)
        if self.num_stages > 2:
            self._build_blocks(a)
        init_truncated_normal(self, nn.Linear)
        self._freeze()

    def _build_tokens(self, a: Arch) -> None:
        layer, width = TOKEN_LAYERS[a.tokens_type], 9 * a.token_dim
        self.tokens_to_token = nn.ModuleDict({'attention1': layer(49 * self.in_channels, a.token_dim, SPLITS[0])})
        if self.num_stages > 1:
            self.tokens_to_token['attention2'] = layer(width, a.token_dim, SPLITS[1])
        if self.num_stages > 2:
            self.tokens_to_token['project'] = nn.Linear(width, a.dim)

    def _build_blocks(self, a: Arch) -> None:
        self.grid = self.pretrain_img_size // STRIDES[2]
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, a.dim), std=0.02))
        self.register_buffer('pos_embed', sinusoid(1 + self.grid**2, a.dim))
        rates = torch.linspace(0, self.drop_path_rate, sum(a.depths), device='cpu').tolist()
        built = sum(a.depths[: self.num_stages - 2])
        self.blocks = nn.Sequential(
            *(Block(a.dim, Attention(a.dim, a.num_heads), a.mlp_ratio, rate) for rate in rates[:built])
        )

    def _stage_blocks(self) -> list[nn.Sequential]:
        first = self.depths[0]
        return [self.blocks[:first], self.blocks[first:]][: self.num_stages - 2]

    def _stage_modules(self) -> Sequence[Sequence[nn.Module | nn.Parameter]]:
        layers = self.tokens_to_token
        modules: list[Sequence[nn.Module | nn.Parameter]] = [[], [layers['attention1']]]
        if self.num_stages > 1:
            modules.append([layers['attention2']])
        if self.num_stages > 2:
            first, *rest = self._stage_blocks()
            modules += [[layers['project'], self.cls_token, first], *([blocks] for blocks in rest)]
        return modules

    def _convert(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = dict(state_dict)
        if any('.ln1.' in k for k in weights):
            weights = {_official_name(k): v for k, v in weights.items()}
        stem = weights.get(self.stem_key)
        if stem is not None and stem.shape[1] == RGB_PATCH and self.in_channels != 3:
            weights |= self._adapt_patches(weights)
        unbuilt: tuple[str, ...]
        unbuilt = ('tokens_to_token.attention2.', 'tokens_to_token.project.', 'cls_token', 'pos_embed', 'blocks.')
        if self.num_stages > 2:
            unbuilt = tuple(f'blocks.{i}.' for i in range(len(self.blocks), sum(self.depths)))
        return {k: v for k, v in weights.items() if not k.startswith(unbuilt[self.num_stages == 2 :])}

    def _adapt_patches(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stem = adapt_stem(weights[self.stem_key].unflatten(1, (3, 7, 7)), self.in_channels).flatten(1)
        if 'attn' in self.stem_key:  # the scale depends on the patch's length: the queries compensate
            stem[: len(stem) // 3] *= (self.in_channels / 3) ** 0.5
        adapted = {self.stem_key: stem}
        for key in ('tokens_to_token.attention1.norm1.weight', 'tokens_to_token.attention1.norm1.bias'):
            norm = weights[key].view(3, 49)
            norm = norm.mean(0, keepdim=True) if self.in_channels == 1 else norm
            adapted[key] = norm[torch.arange(self.in_channels) % len(norm)].flatten()
        return adapted

    def _embed(self, x: Tensor) -> Tensor:
        """Split, project, add class token and positions: (B, token_dim, H / 8, W / 8) -> (B, 1, 1 + N, C)."""
        size = [side // 2 for side in x.shape[2:]]
        tokens = self.tokens_to_token['project'](soft_split(x, *SPLITS[2]))
        grid = resize_grid(self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)), *size)
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        return torch.cat((cls_token, tokens + grid.flatten(1, 2)), dim=1).unsqueeze(1)  # `Attention` takes two axes

    def _stages_forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for name in ('attention1', 'attention2')[: self.num_stages]:
            x = self._run_blocks([self.tokens_to_token[name]], x)
            maps.append(x)
        if self.num_stages > 2:
            size = [side // 2 for side in x.shape[2:]]
            x = self._embed(x)
            for blocks in self._stage_blocks():
                x = self._run_blocks(blocks, x)
                maps.append(x[:, 0, 1:].transpose(1, 2).unflatten(2, size))
        return maps


def _official_name(key: str) -> str:
    for theirs, official in MMPRETRAIN.items():
        key = key.replace(theirs, official)
    return f'blocks.{key.removeprefix("encoder.")}' if key.startswith('encoder.') else key
