"""Set learning rate and weight decay of each parameter by its depth in the backbone and its kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, PolyLR
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS
from torch import nn
from torch.nn.modules.conv import _ConvNd

from mmseg_volo.errors import UsageError
from mmseg_volo.io.weights import POSITION_TABLES

KEYS = ('layer_decay_rate', 'decay_type', 'num_layers', 'custom_keys')
DECAY_TYPES = {
    'layer_wise': 'layer_ids',
    'stage_wise': 'stage_ids',
}  # name -> method of the backbone that returns depths
MULTIPLIERS = ('lr_mult', 'decay_mult')
TABLES = (*POSITION_TABLES, 'cls_token')
POSITION_FUNCTION = '.rel_pos.'  # in place of a table in CoAtNet's `rmlp` shapes; timm does not decay it either


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SegOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Set layer-wise learning rates for our backbones, and decay only weights that multiply features.

    Never decayed: norms, biases, position tables (and MLPs in their place), class tokens, residual scales, StarReLU's
    scale and bias. In short, weights of linear layers and convolutions decay, and any other tensor of two axes or more.

    `decay_type='layer_wise'` is per block, as in BEiT: a layer at depth d of n has the rate
    `lr * layer_decay_rate^(n - d)`, so the last block one factor less than head and neck, the stem n.

    `decay_type='stage_wise'` is ConvNeXt's (facebookresearch/ConvNeXt, `semantic_segmentation`; the name is that of
    mmseg's `LearningRateDecayOptimizerConstructor`): the blocks of stage i of 0 to 3 have the rate
    `lr * layer_decay_rate^(num_layers - i)`, stem and downsampling `lr * layer_decay_rate^(num_layers + 1)`. So all
    pretrained layers are far slower than head and neck. `num_layers` is in ConvNeXt's recipes 6 for a third stage of 9
    blocks and 12 for one of 27: its count of layers, with three blocks of the third stage to a layer and one layer for
    each other stage. Ours follows that count for any number of blocks, e.g. 9 for 18.

    Parameters of equal settings share a group; the first group has the optimiser's own settings, which the log shows.

    Args:
        optim_wrapper_cfg: as mmengine's; its `optimizer` sets `lr`.
        paramwise_cfg: `layer_decay_rate` in (0, 1], 1 by default; `decay_type`, 'layer_wise' by default; with
            'stage_wise' `num_layers`, by default as above; `custom_keys` as mmengine's,
            `{part of a name: dict(lr_mult=..., decay_mult=...)}`, of which the longest match counts. They multiply the
            values of the rules above, where mmengine's replace them.

    Raises:
        UsageError: an unknown key, a custom key that no parameter has, a rate outside (0, 1], an unknown type of decay,
            a backbone without depths, no `lr`.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None):
        # never empty: mmengine would put everything into one group
        super().__init__(optim_wrapper_cfg, {'layer_decay_rate': 1.0, **(paramwise_cfg or {})})

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        if unknown := sorted(self.paramwise_cfg.keys() - set(KEYS)):
            raise UsageError(
                f'paramwise_cfg of {type(self).__name__} takes {", ".join(KEYS)}, got also {unknown}; norms, '
                f'biases, position tables and residual scales are never decayed'
            )
        for key, custom in self.paramwise_cfg.get('custom_keys', {}).items():
            if not isinstance(custom, dict) or not set(custom) <= set(MULTIPLIERS):
                raise UsageError(f'paramwise_cfg.custom_keys.{key}: expected a dict of {MULTIPLIERS}, got {custom}')
        rate = self.paramwise_cfg['layer_decay_rate']
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise UsageError(f'paramwise_cfg.layer_decay_rate must lie in (0, 1], got {rate!r}')
        self._validate_decay_type()
        if self.base_lr is None:
            raise UsageError('optim_wrapper.optimizer has no lr, of which all learning rates are multiples: set it')

    def _validate_decay_type(self) -> None:
        kind, layers = self.paramwise_cfg.get('decay_type', 'layer_wise'), self.paramwise_cfg.get('num_layers')
        if kind not in DECAY_TYPES:
            raise UsageError(f'paramwise_cfg.decay_type must be one of {sorted(DECAY_TYPES)}, got {kind!r}')
        if layers is not None and kind != 'stage_wise':
            raise UsageError("paramwise_cfg.num_layers needs decay_type='stage_wise': leave it out")
        if layers is not None and (not isinstance(layers, int) or layers < 4):
            raise UsageError(f'paramwise_cfg.num_layers must be a whole number of at least 4, got {layers!r}')

    def add_params(self, params: list[dict[str, Any]], module: nn.Module) -> None:
        """Append the groups of a model's parameters to `params`."""
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        depths = self._lr_by_depth(module)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        unused = set(custom_keys)
        for name, owner, param in _parameters(module):
            matching = [key for key in custom_keys if key in name]
            unused -= set(matching)
            if not param.requires_grad:
                continue
            custom = custom_keys[max(sorted(matching), key=len)] if matching else {}
            lr_mult = depths.get(id(param), 1.0) * custom.get('lr_mult', 1.0)
            decay_mult = custom.get('decay_mult', 1.0) if decays(name, owner, param) else 0.0
            groups.setdefault((lr_mult, decay_mult), []).append(param)
        if unused:
            raise UsageError(f'paramwise_cfg.custom_keys: no parameter has {sorted(unused)} in its name')
        # the optimiser's own settings first, then by decreasing rate
        for lr_mult, decay_mult in sorted(groups, key=lambda k: (k != (1, 1), k[0] != 1, -k[0], -k[1])):
            params.append(self._group(lr_mult, decay_mult, groups[lr_mult, decay_mult]))

    def _lr_by_depth(self, model: nn.Module) -> dict[int, float]:
        """Return the factor of each parameter of the backbone by its id."""
        rate: float = self.paramwise_cfg['layer_decay_rate']
        backbone: Any = getattr(model, 'backbone', None)
        if rate == 1:
            return {}
        kind = self.paramwise_cfg.get('decay_type', 'layer_wise')
        if not hasattr(backbone, DECAY_TYPES[kind]):
            raise UsageError(
                f'paramwise_cfg.layer_decay_rate: {type(backbone).__name__} does not define depths of its parameters: '
                f'use a backbone of mmseg_volo, or leave out layer_decay_rate'
            )
        depths = getattr(backbone, DECAY_TYPES[kind])()
        if kind == 'stage_wise':
            count = 1 + self.paramwise_cfg.get('num_layers', convnext_layers(backbone.block_counts()))
        else:
            count = 1 + max(depths.values())
        return {id(p): rate ** (count - depths[name]) for name, p in backbone.named_parameters() if name in depths}

    def _group(self, lr_mult: float, decay_mult: float, params: list[nn.Parameter]) -> dict[str, Any]:
        group = dict(params=params, lr=self.base_lr * lr_mult, group_name=f'lr x{lr_mult:.6g}, decay x{decay_mult:g}')
        if self.base_wd is not None or not decay_mult:
            group['weight_decay'] = decay_mult and self.base_wd * decay_mult
        count = sum(p.numel() for p in params)
        print_log(f'{group["group_name"]}: {len(params)} tensors of {count:,} parameters', logger='current')
        return group


def convnext_layers(blocks: Sequence[int]) -> int:
    """Return the layer count of ConvNeXt's recipes: one per stage, but one per three blocks of the third.

    Args:
        blocks: number of blocks of each stage.
    """
    return 3 + math.ceil(sum(blocks[2:3]) / 3)


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yield (full name, owning module, parameter), each parameter once."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, param in module.named_parameters(prefix, recurse=False):
            if id(param) not in seen:
                seen.add(id(param))
                yield name, module, param


def decays(name: str, owner: nn.Module, param: nn.Parameter) -> bool:
    """Tell whether a parameter gets weight decay.

    Args:
        name: full name of the parameter.
        owner: the module that directly holds it.
        param: the parameter.
    """
    if POSITION_FUNCTION in f'.{name}' or name.endswith(TABLES):
        return False
    if isinstance(owner, nn.Linear | _ConvNd):  # not by axes: sharding over processes may flatten a weight
        return name.endswith('weight')
    return param.ndim > 1


@PARAM_SCHEDULERS.register_module()
class ProportionalPolyLR(PolyLR):
    """Decay like mmengine's `PolyLR`, but end groups with a lower rate than the optimiser's `lr` proportionally below
    `eta_min`. With `PolyLR`, layers whose rate lies below `eta_min` would speed up to it.

    Groups with a higher rate, such as a head with `lr_mult=10`, end at `eta_min`.

    The arguments are those of `PolyLR`.
    """

    def _get_value(self) -> list[float]:
        rates = [group[self.param_name] for group in self.optimizer.param_groups]
        if self.last_step == 0:
            return rates
        factor = (1 - 1 / (self.total_iters - self.last_step + 1)) ** self.power
        own = self.optimizer.defaults[self.param_name]
        ends = [self.eta_min * min(1, base / own) for base in self.base_values]
        return [(rate - end) * factor + end for rate, end in zip(rates, ends, strict=True)]
