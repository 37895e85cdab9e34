"""Recipes: each config trains as its card says, and as the recipe that the card names."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
import torch
from helpers.experiments import every, on_meta
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn

from mmseg_volo.config import load_config

MEASURED = ('volo_demo', 'volo_camvid')  # recipes of our own, with scores
SHORTER = 100  # times, of long trainings: 160,000 steps of a schedule take seconds


@functools.cache
def rates_over_time(schedulers: str, rates: tuple[float, ...], iters: int) -> tuple[tuple[float, ...], ...]:
    """The learning rates of groups: at the first iteration, after the warm-up, and when training has ended."""
    parameters = [dict(params=[nn.Parameter(torch.empty(0))], lr=rate) for rate in rates]
    optimizer = torch.optim.SGD(parameters, lr=rates[0])
    shorter = SHORTER if iters >= 10_000 else 1
    chain = []
    for given in ast.literal_eval(schedulers):
        times = {key: given[key] // shorter for key in ('begin', 'end')}
        with DefaultScope.overwrite_default_scope('mmseg'):
            chain.append(PARAM_SCHEDULERS.build({**given, **times}, default_args=dict(optimizer=optimizer)))
    seen = []
    for _ in range(iters // shorter + 1):
        seen.append(tuple(group['lr'] for group in optimizer.param_groups))
        optimizer.step()
        for scheduler in chain:
            scheduler.step()
    return seen[0], seen[chain[0].end], seen[-1]


@every
def test_learning_rates_of_every_group_over_a_training(path: Path) -> None:
    """Warm-up from 1e-6 of the rate; the end is 0 as in the recipes, but 5e-6 for VOLO's."""
    name, cfg = path.stem, load_config(path)
    wrapper = build_optim_wrapper(on_meta(path), cfg.optim_wrapper)
    bases = tuple(dict.fromkeys(group['lr'] for group in wrapper.optimizer.param_groups))
    warm, poly = cfg.param_scheduler
    assert (warm.begin, warm.end, poly.end) == (0, poly.begin, cfg.train_cfg.max_iters)
    plain = str([dict(s) for s in cfg.param_scheduler])
    first, peak, last = rates_over_time(plain, bases, cfg.train_cfg.max_iters)
    assert peak == pytest.approx(bases)
    if name in MEASURED:
        assert first == pytest.approx([0.01 * base for base in bases]) and last == pytest.approx([0] * len(bases))
        return
    assert warm.end == 1500
    assert first == pytest.approx([1e-6 * base for base in bases])
    tenfold, published = name.endswith('segformer'), name.startswith('volo') and not name.endswith('segformer')
    assert last == pytest.approx([5e-6 if published else 0] * len(bases), abs=1e-12)
    if name.startswith(('caformer', 'convformer')) and not tenfold:
        layers = 6 if '_s18_' in name else 9  # ConvNeXt's count for 9 and 18 blocks in the third stage
        assert bases == pytest.approx([1e-4, *(1e-4 * 0.9 ** (layers - i) for i in (3, 2, 1, 0, -1))])
    else:
        assert bases == pytest.approx([6e-5, 6e-4] if tenfold else [6e-5])


@every
def test_the_loss_is_averaged_as_in_the_recipe(path: Path) -> None:
    """Over all pixels in published recipes; over labelled ones where we have measured with that."""
    model = load_config(path).model
    heads = [model.decode_head, *([model.auxiliary_head] if 'auxiliary_head' in model else [])]
    ours = path.stem in MEASURED
    for head in heads:
        assert ours or head.loss_decode == dict(type='CrossEntropyLoss', loss_weight=head.loss_decode.loss_weight)
        weighted = head.loss_decode.type == 'WeightedCrossEntropy'  # knows no other way
        assert weighted or head.loss_decode.get('avg_non_ignore', False) == ours


@every
def test_the_neck_is_the_published_one(path: Path) -> None:
    model = load_config(path).model
    if 'neck' not in model or path.stem == 'volo_demo':
        assert 'out_norm' not in model.backbone and not model.get('neck', {}).get('refine')
        assert path.stem in MEASURED or not re.match(r'(volo|t2t)_(?!.*segformer)', path.stem)
        return
    assert model.neck.refine is True and model.backbone.out_norm is False
    sides = on_meta(path).neck.sides
    assert [len(side) for side in sides] == ([6, 6, 3, 3] if path.stem.startswith('volo') else [3, 3, 3, 3])


CLAIMS = {  # what a card may say of its config: the first number counts
    r'AdamW ([\de.-]+)': lambda c: c.optim_wrapper.optimizer.lr,
    r'weight decay ([\d.]+)': lambda c: c.optim_wrapper.optimizer.weight_decay,
    r'[Ll]inear decay to ([\de-]+)': lambda c: c.param_scheduler[-1].eta_min,
    r'warm-up of (\d+)': lambda c: c.param_scheduler[0].end,
    r'(?:up|1500) from ([\de-]+) of the rate': lambda c: c.param_scheduler[0].start_factor,
    r'(\d+)k iterations': lambda c: c.train_cfg.max_iters / 1000,
    r'total batch (\d+)': lambda c: c.auto_scale_lr.base_batch_size,
    r'(\d+)x\1 crops': lambda c: c.crop_size[0],
    r'drop path ([\d.]+)': lambda c: c.model.backbone.drop_path_rate,
    r'[Ss]lide stride \((\d+), \1\)': lambda c: c.model.test_cfg.stride[0],
    r'eights at (\d+)': lambda c: c.model.backbone.get('pretrain_img_size', 224),
}
OF_SOME = {
    r'auxiliary head ([\d.]+)': lambda c: c.model.auxiliary_head.loss_decode.loss_weight,
    r'learning rate x(\d+)': lambda c: c.optim_wrapper.paramwise_cfg.custom_keys.decode_head.lr_mult,
    r'(?:here|layer decay) (0.\d) stage-wise': lambda c: c.optim_wrapper.paramwise_cfg.layer_decay_rate,
}


@every
def test_a_card_says_what_its_config_does(path: Path) -> None:
    cfg = load_config(path)
    card = ' '.join(re.match(r'"""(.*?)"""', path.read_text(), re.S)[1].split('Command:')[0].split())
    if path.stem in MEASURED:
        return
    for pattern, value in (CLAIMS | OF_SOME).items():
        found = re.search(pattern, card)
        assert found or pattern in OF_SOME, f'{path.name} does not say {pattern}'
        if found:
            assert float(found[1].rstrip('.')) == pytest.approx(value(cfg)), pattern
    assert ('auxiliary head 0.4' in card) == ('auxiliary_head' in cfg.model)
    assert bool(re.search('stage-wise', card)) == ('layer_decay_rate' in cfg.optim_wrapper.get('paramwise_cfg', {}))
