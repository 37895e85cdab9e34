"""Define the base class of all backbones: padding, norms, freezing, layer ids, strict loading of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar, cast

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmseg_volo.io.weights import read_backbone, strict_load
from mmseg_volo.models.backbones.layers import LayerNorm2d

MIN_SIZE = 32  # pixels per side
Row = TypeVar('Row')


class Backbone(BaseModule):
    """Base class of the backbones: turns an image into one feature map per entry of `out_indices`.

    A family defines `_stages_forward`, `_stage_modules`, `stem_key` and, if need be, `_convert`.

    Args:
        dims: channels of each stage.
        strides: stride of each stage; images are padded to multiples of the largest, unless a family sets `pad_to`.
        out_indices: stages whose maps are returned, ascending. Stages after the last one are not built.
        in_channels: channels of the image. If it is not 3, the stem of a 3-channel checkpoint is adapted: summed for
            one channel, else repeated and scaled by 3 / in_channels.
        drop_path_rate: drop rate (stochastic depth) of the last block.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages (also their norm statistics).
        pretrain_img_size: side in pixels of the square images the weights were trained on. Sets the size of position
            tables, which are resized to the input in every forward pass.
        with_cp: whether blocks are recomputed in the backward pass (gradient checkpointing), which saves memory.
        out_norm: whether each returned map gets a LayerNorm over its channels.
        init_cfg: `dict(type='Pretrained', checkpoint=SOURCE[, prefix='backbone.'])` or None; SOURCE is a path,
            `https://...` or `timm://NAME`. In a checkpoint of a whole model the prefix `backbone.` is detected.

    Attributes:
        out_channels, out_strides: tuples, one entry per returned map.
    """

    stem_key: str  # name of the weight that is applied to the image
    ignored_keys: tuple[str, ...] = ()  # prefixes of a classifier's weights, which are not loaded

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
        """Compute a map (B, dim, H / stride, W / stride) per stage of (B, in_channels, H, W), multiples of `pad_to`."""
        raise NotImplementedError

    def _stage_modules(self) -> Sequence[Sequence[nn.Module | nn.Parameter]]:
        """List the modules of the stem, then of each stage that is built, for `frozen_stages` and layer ids.

        The blocks of a stage are an `nn.Sequential`, which may be in an `nn.ModuleDict`.
        """
        raise NotImplementedError

    def _convert(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename a checkpoint's keys from any known layout to ours."""
        return dict(state_dict)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of a batch of images.

        Args:
            x: (B, in_channels, H, W), RGB, normalised as the weights expect (`models.pretrained.record_of`: mean and
                std mostly 127.5 for CoAtNet, else ImageNet's), H and W at least 32, any parity and aspect ratio.

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
        if right or below:  # `F.pad` copies the image even where it adds nothing
            x = F.pad(x, (0, right, 0, below))
        maps = self._stages_forward(x)
        outs = []
        for i, stride, norm in zip(self.out_indices, self.out_strides, self.out_norms, strict=True):
            outs.append(norm(maps[i][..., : -(-height // stride), : -(-width // stride)]))
        return tuple(outs)

    def layer_ids(self) -> dict[str, int]:
        """Return the depth of each parameter by its name, for layer-wise learning rate decay.

        The stem is layer 0, then each block is a layer, counted over the whole network. Downsampling, position tables
        and tokens belong to the block after them, `out_norms` to the last one. If the stem has no weights (T2T-ViT),
        the first layer with weights is 0.
        """
        stem, *stages = self._flat_stage_modules()
        layers = [stem]
        for modules in stages:
            before_block: list[nn.Module | nn.Parameter] = []
            for module in modules:
                if not isinstance(module, nn.Sequential):  # which holds the blocks
                    before_block.append(module)
                    continue
                for block in module:
                    layers.append([*before_block, block])
                    before_block = []
            layers.append(before_block)
        depths: dict[int, int] = {}
        depth = 0
        for layer in layers:
            own = [p for module in layer for p in _parameters(module)]
            depths |= dict.fromkeys(map(id, own), depth)
            depth += bool(own)
        return {name: depths.get(id(p), depth - 1) for name, p in self.named_parameters()}

    def stage_ids(self) -> dict[str, int]:
        """Return the stage of each parameter by its name, counted as in ConvNeXt's stage-wise learning rates.

        The blocks of stage i (from 0) are i + 1; everything else is 0: stem, downsampling, position tables and tokens,
        and T2T-ViT's tokens-to-token layers. `out_norms` are not listed: they are new, as heads are.
        """
        stage_of: dict[int, int] = {}
        for i, modules in enumerate(self._flat_stage_modules()):
            for module in modules:
                stage = i if isinstance(module, nn.Sequential) else 0
                stage_of |= dict.fromkeys((id(p) for p in _parameters(module)), stage)
        return {name: stage_of[id(p)] for name, p in self.named_parameters() if id(p) in stage_of}

    def block_counts(self) -> tuple[int, ...]:
        """Return the number of blocks of each stage that is built."""
        stages = self._flat_stage_modules()[1:]
        return tuple(sum(len(module) for module in stage if isinstance(module, nn.Sequential)) for stage in stages)

    def block_list(self) -> list[nn.Module]:
        """Return the blocks of all stages, in order: FSDP shards each of them."""
        modules = chain.from_iterable(self._flat_stage_modules()[1:])
        return [block for module in modules if isinstance(module, nn.Sequential) for block in module]

    def _flat_stage_modules(self) -> list[list[nn.Module | nn.Parameter]]:
        """Return `_stage_modules()` with each `nn.ModuleDict` replaced by its values."""
        return [
            [*chain.from_iterable(m.values() if isinstance(m, nn.ModuleDict) else [m] for m in modules)]
            for modules in self._stage_modules()
        ]

    def _run_blocks(self, blocks: nn.Module | Iterable[nn.Module], x: Tensor) -> Tensor:
        for block in cast('Iterable[nn.Module]', blocks):  # an item of a ModuleList is a Module for its type only
            x = checkpoint(block, x, use_reentrant=False) if self.with_cp and self.training else block(x)
        return x

    def _freeze(self) -> None:
        """Freeze the first `frozen_stages`; called at the end of a family's constructor and by `train()`."""
        for module in chain.from_iterable(self._stage_modules()[: self.frozen_stages + 1]):
            module.requires_grad_(False)
            if isinstance(module, nn.Module):
                module.eval()

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        self._freeze()
        return self

    def init_weights(self) -> None:
        """Load the weights that `init_cfg` names; without it the constructor's random weights stay."""
        if self.init_cfg is not None:
            if not isinstance(self.init_cfg, Mapping) or self.init_cfg.get('type') != 'Pretrained':
                raise ValueError(f"init_cfg must be dict(type='Pretrained', checkpoint=...), got {self.init_cfg!r}")
            if unknown := self.init_cfg.keys() - {'type', 'checkpoint', 'prefix'}:
                raise ValueError(f"init_cfg knows 'type', 'checkpoint' and 'prefix', got also {sorted(unknown)}")
            source = self.init_cfg['checkpoint']
            self.load_pretrained(read_backbone(source, self.init_cfg.get('prefix', '')), source)
        self.is_init = True

    def load_pretrained(self, state_dict: Mapping[str, Tensor], source: str = 'state_dict') -> None:
        """Strictly load this backbone's weights, or those of a classifier without its last layers.

        Args:
            state_dict: in any layout the family knows.
            source: where it came from, for the message.

        Raises:
            UsageError: keys are missing, unknown, or of another shape; names the first ones. Nothing is loaded then.
        """
        strict_load(self, self.converted(state_dict), source)

    def converted(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights under this backbone's keys, without those of a classifier; shapes are not checked.

        Args:
            state_dict: in any layout the family knows.
        """
        own = self.state_dict()
        weights = {k: v for k, v in self._convert(state_dict).items() if not k.startswith(self.ignored_keys)}
        stem = weights.get(self.stem_key)
        if stem is not None and stem.ndim == 4 and stem.shape[1] == 3 != self.in_channels:
            weights[self.stem_key] = adapt_stem(stem, self.in_channels)
        if not any(k.startswith('out_norms.') for k in weights):  # a classifier has none: they start as the identity
            weights |= {k: v for k, v in own.items() if k.startswith('out_norms.')}
        return weights


def _parameters(module: nn.Module | nn.Parameter) -> Iterable[nn.Parameter]:
    return module.parameters() if isinstance(module, nn.Module) else [module]


def adapt_stem(weight: Tensor, in_channels: int) -> Tensor:
    """Convert an RGB convolution to `in_channels` channels, keeping the scale of its outputs (timm's rule).

    Args:
        weight: (out, 3, k, k).

    Returns:
        (out, in_channels, k, k).
    """
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-in_channels // 3), 1, 1)[:, :in_channels]
    return repeated * (3 / in_channels)


def resolve_arch(family: str, table: Mapping[str, Row], arch: str | Mapping[str, Any]) -> Row:
    """Return the row of a family's table with this name, or a row made from a dict of its fields.

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
