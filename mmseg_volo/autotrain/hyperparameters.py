"""Choose learning rate, weight decay and stochastic depth of a family for any data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmseg_volo.models.backbones.metaformer import ARCHS as METAFORMERS

BATCH = 16  # images per update of the learning rates below, as in ADE20K's recipes
WARMUP = 1500  # iterations at most
# stochastic depth of the shipped configs with UPerNet, by millions of parameters of the backbone: (below, rate)
DROP_PATHS = {
    'VOLO': ((30, 0.1), (60, 0.2), (math.inf, 0.5)),
    'CAFormer': ((math.inf, 0.3),),
    'ConvFormer': ((math.inf, 0.3),),
    'CoAtNet': ((30, 0.2), (math.inf, 0.3)),
}
OTHERS = ((50, 0.1), (math.inf, 0.3))  # T2T-ViT's, and of families without a config
SCRATCH_DROP_PATH = 0.1  # of `benchmarks/camvid_from_scratch.py`, as all settings from scratch here


def drop_path_rate(family: str, millions: float, pretrained: bool) -> float:
    """Return the stochastic depth of the last block.

    Args:
        family: e.g. 'VOLO'.
        millions: of parameters of the backbone.
        pretrained: whether it starts from ImageNet weights.
    """
    if not pretrained:
        return SCRATCH_DROP_PATH
    return next(rate for below, rate in DROP_PATHS.get(family, OTHERS) if millions < below)


def optimiser(family: str, pretrained: bool, batch: int, iters: int, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return `optim_wrapper` and `param_scheduler` of a config.

    Learning rate and weight decay are those of the family's shipped configs with UPerNet; from scratch 5e-4 and 0.05,
    without layer decay. Rates scale with the square root of the batch. Gradient clipping, and a warm-up of a tenth of
    a short training, are ours.

    Args:
        family: e.g. 'VOLO'.
        pretrained: whether the backbone starts from ImageNet weights.
        batch: images per update.
        iters: length of the training.
        base: the schedule that the shipped configs inherit from (`configs/_base_/schedules`).
    """
    lr, decay, end = (1e-4, 0.05, 0.0) if family in METAFORMERS else (6e-5, 0.01, 0.0)
    if family == 'VOLO':
        end = 5e-6  # [recalled]
    if not pretrained:
        lr, decay, end = 5e-4, 0.05, 0.0
    factor = (batch / BATCH) ** 0.5
    wrapper = {
        **base['optim_wrapper'],
        'optimizer': dict(type='AdamW', lr=float(f'{lr * factor:.2g}'), weight_decay=decay),
        'clip_grad': dict(max_norm=1.0),
    }
    if pretrained and family in METAFORMERS:
        wrapper['paramwise_cfg'] = dict(layer_decay_rate=0.9, decay_type='stage_wise')
    warm = min(WARMUP, max(1, iters // 10))
    linear, poly = base['param_scheduler']
    poly = {**poly, 'eta_min': float(f'{end * factor:.2g}'), 'begin': warm, 'end': max(iters, warm + 1)}
    return dict(optim_wrapper=wrapper, param_scheduler=[{**linear, 'end': warm}, poly])
