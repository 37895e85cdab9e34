"""The estimates of costs: counted right, as on a real device, near what was measured, and up to date."""

from __future__ import annotations

import re
from pathlib import Path

import mmseg
import pytest
import torch
from helpers.experiments import ALL, KINDS
from helpers.tiny_backbones import TINY
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_volo.config import CONFIGS, load_config, shipped_configs
from mmseg_volo.zoo import cost
from mmseg_volo.zoo.results import CostEstimate, read_results

MEASURED = ('volo_camvid', 'volo_demo')
ESTIMATED = sorted(set(shipped_configs()) - set(MEASURED))


def tiny(family: str, **backbone) -> nn.Module:
    """A small segmentor with the heads of our configs, on the CPU."""
    cfg = load_config('caformer_s18_ade20k')
    cfg.model.backbone = dict(type=family, **TINY[family], **backbone)
    with DefaultScope.overwrite_default_scope('mmseg'):
        dims = list(MODELS.build(cfg.model.backbone).out_channels)
        cfg.model.decode_head.update(in_channels=dims, channels=8, num_classes=4)
        cfg.model.auxiliary_head.update(in_channels=dims[2], channels=8, num_classes=4)
        return revert_sync_batchnorm(MODELS.build(cfg.model)).train()


def test_as_many_bytes_and_flops_as_on_a_real_device() -> None:
    model = tiny('ConvFormer')
    real = cost.count_flops(model, 2, (64, 96), autocast=False)
    meta = cost.count_flops(model.to('meta'), 2, (64, 96), autocast=False)
    assert meta[0] == real[0] > 0
    assert meta[1] == pytest.approx(real[1], rel=1e-3)


def test_bytes_are_those_of_torchs_profiler() -> None:
    """Without oneDNN, which takes scratch memory inside of operators, how much depends on the processor."""
    model = tiny('ConvFormer')
    counted = cost.count_flops(model, 2, (64, 96), autocast=False)[1]
    model.zero_grad(set_to_none=True)
    watched = dict(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with torch.backends.mkldnn.flags(enabled=False), torch.profiler.profile(**watched) as profiler:
        cost._loss(model, torch.zeros(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.long)).backward()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    assert counted == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize('groups', [1, 16])
@pytest.mark.parametrize('kind', [nn.Conv2d, nn.ConvTranspose2d])
def test_a_convolution_costs_twice_as_much_backward(kind: type[nn.Module], groups: int) -> None:
    layer, x = kind(16, 32, 3, groups=groups), torch.zeros(1, 16, 9, 9, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        out = layer(x)
    formulas = {torch.ops.aten.convolution_backward: cost._convolution_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=formulas) as backward:
        out.sum().backward()
    assert backward.get_total_flops() == 2 * forward.get_total_flops() > 0


def test_recomputed_blocks_cost_time_and_save_memory() -> None:
    plain, recomputed = (
        cost.count_flops(tiny('VOLO', with_cp=with_cp).to('meta'), 2, (128, 128)) for with_cp in (False, True)
    )
    assert 1.05 < recomputed[0] / plain[0] < 4 / 3
    assert recomputed[1] < 0.8 * plain[1]


def test_bfloat16_takes_less() -> None:
    model = tiny('CAFormer').to('meta')
    wide, narrow = (cost.count_flops(model, 2, (128, 128), autocast) for autocast in (False, True))
    assert 0.5 < narrow[1] / wide[1] < 0.95  # norms, resized maps and the loss stay float32
    assert narrow[0] >= wide[0]  # the fused attention computes its matrix again in the backward pass


@pytest.mark.parametrize(
    ('name', 'gigabytes'), [('segformer/segformer_mit-b0_8xb2', 2.1), ('upernet/upernet_r50_4xb4', 8.1)]
)
def test_memory_is_near_what_mmsegmentation_measured(name: str, gigabytes: float) -> None:
    """GiB as in MMSegmentation's metafiles: float32, AdamW or (ResNet) SGD, which has one state."""
    (path,) = (Path(mmseg.__file__).parent / '.mim/configs').glob(f'{name}-160k_ade20k-512x512.py')
    cfg = Config.fromfile(path)
    cfg.model.backbone.init_cfg = cfg.model.pretrained = None
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).to('meta').train()
    peak = cost.count_flops(model, cfg.train_dataloader.batch_size, cfg.crop_size, autocast=False)[1]
    states = cost.STATES + cost.BUCKETS - 4 * (cfg.optim_wrapper.optimizer.type == 'SGD')
    total = cost.OVERHEAD * (peak + states * sum(p.numel() for p in model.parameters()))
    assert total / 2**30 == pytest.approx(gigabytes, rel=0.12)


@pytest.mark.parametrize('name', ESTIMATED if ALL else KINDS)
def test_estimate_is_up_to_date(name: str) -> None:
    """To a tenth, as operators differ between versions of torch."""
    found = cost.estimate(load_config(name))
    known = read_results()[name].cost
    assert known.gpus == found.gpus
    assert known.hours == pytest.approx(found.hours, rel=0.1, abs=0.06), 'run python tools/recipe_cost.py --write'
    assert known.memory == pytest.approx(found.memory / 2**30, rel=0.1, abs=1), (
        'run python tools/recipe_cost.py --write'
    )


def test_every_config_has_its_cost() -> None:
    for name, results in read_results().items():
        assert isinstance(results.cost, CostEstimate) == (name not in MEASURED), results.cost
        if name not in MEASURED:
            command = re.search(r'\((\d+) GPUs x', (CONFIGS / f'{name}.py').read_text())
            assert results.cost.gpus == int(command[1])
