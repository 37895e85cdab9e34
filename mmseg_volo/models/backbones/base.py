"""The contract that all backbones keep, and the strict loading of their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmseg_volo.io.weights import read_backbone, strict_load
from mmseg_volo.models.backbones.layers import LayerNorm2d

MIN_SIZE = 32  # pixels per side


class Backbone(BaseModule):
    """Base class of the backbones: an image in, one map per entry of `out_indices` out.

    A family defines `_stages_forward`, `_parts`, `stem_key` and `_convert`; everything else is here.

    Args:
        dims: channels of each stage.
        strides: stride of each stage; the largest one is what inputs are padded to a multiple of, unless a family
            sets `pad_to` itself.
        out_indices: stages whose maps are returned, ascending. Stages behind the last one are not built.
        in_channels: channels of the image. When it is not 3, the stem of a 3-channel checkpoint is adapted: summed
            for one channel, else repeated and scaled by 3 / in_channels.
        drop_path_rate: stochastic depth of the last block.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages (also their norm statistics).
        pretrain_img_size: side in pixels of the square images that the weights were trained on: sets the size of
            position tables, which are resized to the input in every forward.
        with_cp: recompute blocks in the backward pass to save memory.
        out_norm: a LayerNorm over the channels of each returned map; off returns the raw maps.
        init_cfg: `dict(type='Pretrained', checkpoint=SOURCE[, prefix='backbone.'])` or None; SOURCE is a path,
            `https://...` or `timm://NAME`; of a whole model `backbone.` is found without being given.

    Attributes:
        out_channels, out_strides: tuples, one entry per returned map.
    """

    stem_key: str  # name of the weight that sees the image
    ignored_keys: tuple[str, ...] = ()  # prefixes of a checkpoint's classifier, which is left out

    def __init__(
        self,
        dims: Sequence[int],
        strides: Sequence[int],
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
        super().__init__(init_cfg)
        name = type(self).__name__
        out_indices = tuple(out_indices)
        if not out_indices or out_indices != tuple(sorted(set(out_indices) & set(range(len(dims))))):
            raise ValueError(f'{name}: out_indices must be ascending stages of 0..{len(dims) - 1}, got {out_indices}')
        if not -1 <= frozen_stages <= len(dims):
            raise ValueError(f'{name}: frozen_stages must lie in -1..{len(dims)}, got {frozen_stages}')
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'{name}: drop_path_rate must lie in [0, 1), got {drop_path_rate}')
        if pretrain_img_size < 1 or pretrain_img_size % max(strides):
            raise ValueError(f'{name}: pretrain_img_size must be a multiple of {max(strides)}, got {pretrain_img_size}')
        self.out_indices = out_indices
        self.num_stages = out_indices[-1] + 1
        self.in_channels = in_channels
        self.drop_path_rate = drop_path_rate
        self.frozen_stages = frozen_stages
        self.pretrain_img_size = pretrain_img_size
        self.with_cp = with_cp
        self.out_channels = tuple(dims[i] for i in out_indices)
        self.out_strides = tuple(strides[i] for i in out_indices)
        self.pad_to = max(strides)
        self.out_norms = nn.ModuleList(LayerNorm2d(dims[i]) if out_norm else nn.Identity() for i in out_indices)

    def _stages_forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W), H and W multiples of `pad_to` -> a map (B, dim, H / stride, W / stride) per stage."""
        raise NotImplementedError

    def _parts(self) -> list[list[nn.Module | nn.Parameter]]:
        """The parts of the stem, then of each stage that is built, in order: for `frozen_stages` and `layer_ids`.

        Blocks stand in an `nn.Sequential`, which may be in an `nn.ModuleDict`.
        """
        raise NotImplementedError

    def _convert(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's keys in any known layout -> ours."""
        return dict(state_dict)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of an image.

        Args:
            x: (B, in_channels, H, W), RGB, normalised as the weights expect (`zoo.record_of`: CoAtNet's mostly by
                127.5 and 127.5, the others by ImageNet's statistics), H and W at least 32, any parity and aspect.

        Returns:
            One map (B, out_channels[i], ceil(H / out_strides[i]), ceil(W / out_strides[i])) per entry of `out_indices`.
        """
        height, width = x.shape[-2:]
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(height, width) < MIN_SIZE:
            raise ValueError(
                f'{type(self).__name__} takes (B, {self.in_channels}, H, W) with H and W of at least {MIN_SIZE}, '
                f'got {tuple(x.shape)}'
            )
        right, below = -width % self.pad_to, -height % self.pad_to
        if right or below:  # without, `F.pad` would copy the image
            x = F.pad(x, (0, right, 0, below))
        maps = self._stages_forward(x)
        outs = []
        for i, stride, norm in zip(self.out_indices, self.out_strides, self.out_norms, strict=True):
            outs.append(norm(maps[i][..., : -(-height // stride), : -(-width // stride)]))
        return tuple(outs)

    def layer_ids(self) -> dict[str, int]:
        """How deep each parameter lies, by its name: what a learning rate that grows with depth goes by.

        The stem is 0, then each block is a layer of its own, counted over the whole network. Downsampling, position
        tables and tokens belong to the block that follows them, `out_norms` to the last one. Where the stem has no
        weights (T2T-ViT), the first layer that has some is 0.
        """
        stem, *stages = self._open_parts()
        layers = [stem]
        for parts in stages:
            waiting: list[nn.Module | nn.Parameter] = []
            for part in parts:
                if not isinstance(part, nn.Sequential):  # which holds the blocks
                    waiting.append(part)
                    continue
                for block in part:
                    layers.append([*waiting, block])
                    waiting = []
            layers.append(waiting)
        found: dict[int, int] = {}
        depth = 0
        for layer in layers:
            own = [p for part in layer for p in _parameters(part)]
            found |= dict.fromkeys(map(id, own), depth)
            depth += bool(own)
        return {name: found.get(id(p), depth - 1) for name, p in self.named_parameters()}

    def stage_ids(self) -> dict[str, int]:
        """The stage of each parameter, by its name, as ConvNeXt's stage-wise learning rates count stages.

        The blocks of stage i (from 0) are i + 1; all else is 0: stem, downsampling, position tables and tokens, and
        T2T-ViT's tokens-to-token layers. `out_norms` are left out: they are new, as heads are.
        """
        found: dict[int, int] = {}
        for i, parts in enumerate(self._open_parts()):
            for part in parts:
                stage = i if isinstance(part, nn.Sequential) else 0
                found |= dict.fromkeys((id(p) for p in _parameters(part)), stage)
        return {name: found[id(p)] for name, p in self.named_parameters() if id(p) in found}

    def block_counts(self) -> tuple[int, ...]:
        """How many blocks each stage that is built has."""
        return tuple(
            sum(len(part) for part in parts if isinstance(part, nn.Sequential)) for parts in self._open_parts()[1:]
        )

    def block_list(self) -> list[nn.Module]:
        """The blocks of all stages, in order: what FSDP splits one by one."""
        parts = chain.from_iterable(self._open_parts()[1:])
        return [block for part in parts if isinstance(part, nn.Sequential) for block in part]

    def _open_parts(self) -> list[list[nn.Module | nn.Parameter]]:
        """`_parts()` with what an `nn.ModuleDict` holds instead of it."""
        return [
            [*chain.from_iterable(p.values() if isinstance(p, nn.ModuleDict) else [p] for p in parts)]
            for parts in self._parts()
        ]

    def _run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.with_cp and self.training else block(x)
        return x

    def _freeze(self) -> None:
        """Called at the end of a family's constructor and by `train()`."""
        for part in (p for parts in self._parts()[: self.frozen_stages + 1] for p in parts):
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        self._freeze()
        return self

    def init_weights(self) -> None:
        """Loads `init_cfg`; without it the constructor's random weights stay."""
        if self.init_cfg is not None:
            if not isinstance(self.init_cfg, Mapping) or self.init_cfg.get('type') != 'Pretrained':
                raise ValueError(f"init_cfg must be dict(type='Pretrained', checkpoint=...), got {self.init_cfg!r}")
            if unknown := self.init_cfg.keys() - {'type', 'checkpoint', 'prefix'}:
                raise ValueError(f"init_cfg knows 'type', 'checkpoint' and 'prefix', got also {sorted(unknown)}")
            source = self.init_cfg['checkpoint']
            self.load_pretrained(read_backbone(source, self.init_cfg.get('prefix', '')), source)
        self.is_init = True

    def load_pretrained(self, state_dict: Mapping[str, Tensor], source: str = 'state_dict') -> None:
        """Strictly loads classifier weights (classifier left out) or this backbone's own.

        Args:
            state_dict: in any layout that the family knows.
            source: where it came from, for the message.

        Raises:
            UsageError: a key is missing, unknown, or of another shape; names the first ones. Nothing is loaded then.
        """
        strict_load(self, self.converted(state_dict), source)

    def converted(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Classifier weights (classifier left out) or this backbone's own, under its keys; shapes are as they are.

        Args:
            state_dict: in any layout that the family knows.
        """
        own = self.state_dict()
        weights = {k: v for k, v in self._convert(state_dict).items() if not k.startswith(self.ignored_keys)}
        stem = weights.get(self.stem_key)
        if stem is not None and stem.ndim == 4 and stem.shape[1] == 3 != self.in_channels:
            weights[self.stem_key] = adapt_stem(stem, self.in_channels)
        if not any(k.startswith('out_norms.') for k in weights):  # a classifier has none: ours start at identity
            weights |= {k: v for k, v in own.items() if k.startswith('out_norms.')}
        return weights


def _parameters(part: nn.Module | nn.Parameter) -> Iterable[nn.Parameter]:
    return part.parameters() if isinstance(part, nn.Module) else [part]


def adapt_stem(weight: Tensor, in_channels: int) -> Tensor:
    """A convolution that sees RGB -> one that sees `in_channels` channels with outputs of the same size (timm's rule).

    Args:
        weight: (out, 3, k, k).

    Returns:
        (out, in_channels, k, k).
    """
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-in_channels // 3), 1, 1)[:, :in_channels]
    return repeated * (3 / in_channels)


def resolve_arch(family: str, table: Mapping[str, Any], arch: str | Mapping) -> Any:
    """A row of a family's table by its name, or a row made of a dict of the row's fields.

    Raises:
        ValueError: the name is unknown, or the dict has missing or unknown keys.
    """
    if isinstance(arch, str) and arch in table:
        return table[arch]
    if not isinstance(arch, Mapping):
        raise ValueError(f'{family}: arch must be one of {sorted(table)} or a dict, got {arch!r}')
    row = type(next(iter(table.values())))
    try:
        return row(**arch)
    except TypeError:
        raise ValueError(f'{family}: an arch dict has the keys {[*row.__annotations__]}, got {sorted(arch)}') from None
