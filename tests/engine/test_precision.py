"""Precision, clipping and averaged weights: what a training's optimiser is wrapped in."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import mmseg_volo
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.optim import precision as optim
from mmseg_volo.errors import UsageError
from mmseg_volo_cli import main

OLD, NEW, NONE = (7, 5), (9, 0), None
BF16 = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
FP16 = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
FP32, CPU = dict(type='OptimWrapper'), dict(type='CpuAmpOptimWrapper')


@pytest.mark.parametrize(
    ('gpu', 'amp', 'given', 'wanted'),
    [
        (NONE, None, FP32, FP32),
        (NONE, True, FP32, CPU),
        (NONE, True, FP16, CPU),
        (NONE, False, CPU, FP32),
        (OLD, None, FP32, FP32),
        (OLD, True, FP32, FP16),
        (NEW, None, FP32, BF16),
        (NEW, None, FP16, FP16),  # the config's own
        (NEW, True, FP16, BF16),
        (NEW, False, FP32, FP32),
        (NEW, False, FP16, FP32),
        (NEW, None, dict(type='Mine'), dict(type='Mine')),
    ],
)
def test_precision(
    gpu: tuple[int, int] | None, amp: bool | None, given: dict, wanted: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: gpu)
    chosen = copy.deepcopy(given)
    optim.set_precision(chosen, amp)
    assert chosen == wanted
    with pytest.raises(UsageError, match='has its own, Mine'):
        optim.set_precision(dict(type='Mine'), True)


CONFIG = """
_base_ = ['{configs}/_base_/models/segformer.py', '{configs}/_base_/datasets/demo.py',
          '{configs}/_base_/schedules/adamw_80k.py', '{configs}/_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(type='CAFormer', arch=dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32])),
    decode_head=dict(in_channels=[8, 16, 32, 32], channels=16, num_classes=_base_.num_classes),
)
optim_wrapper = dict(optimizer=dict(lr=0.3), clip_grad=dict(max_norm=0.01), paramwise_cfg=dict(layer_decay_rate=0.9))
param_scheduler = [dict(type='LinearLR', start_factor=1 / 60, begin=0, end=1500, by_epoch=False)]  # few iterations
train_cfg = dict(max_iters=2)
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=0.25)]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1, save_best=None), logger=dict(interval=1))
"""
NO_WORKERS = [
    f'{k}_dataloader.{o}' for k in ('train', 'val', 'test') for o in ('num_workers=0', 'persistent_workers=False')
]


def saved(work: Path, iteration: int, key: str = 'state_dict') -> dict[str, torch.Tensor]:
    return torch.load(work / f'iter_{iteration}.pth', weights_only=True)[key]


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """(norm of the gradient at each update, the backbone's weights at each test forward)."""
    norms, tested = [], []
    step, forward = torch.optim.AdamW.step, mmseg_volo.models.backbones.CAFormer.forward

    def spy_step(self: torch.optim.AdamW, *args, **kwargs) -> None:
        grads = [p.grad for g in self.param_groups for p in g['params']]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())
        step(self, *args, **kwargs)

    def spy_forward(self: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not self.training:
            tested.append({f'backbone.{k}': v.cpu().clone() for k, v in self.state_dict().items()})
        return forward(self, x)

    monkeypatch.setattr(torch.optim.AdamW, 'step', spy_step)
    monkeypatch.setattr(mmseg_volo.models.backbones.CAFormer, 'forward', spy_forward)
    return norms, tested


def test_averaged_weights_and_clipping_in_a_real_training(
    tmp_path: Path, spied: tuple[list[float], list[dict[str, torch.Tensor]]], capsys: pytest.CaptureFixture
) -> None:
    """Train, resume, test, test with TTA: what is saved, tested and loaded is the average that its definition gives."""
    data = scenes.generate(tmp_path / 'scenes', 4, 2, 64, 128)
    config, work = tmp_path / 'small.py', tmp_path / 'work'
    config.write_text(CONFIG.format(configs=mmseg_volo.config.CONFIGS))
    options = ['--work-dir', str(work), '--cfg-options', f'data_root={data}', *NO_WORKERS]
    norms, tested = spied
    assert main(['train', str(config), *options]) == 0
    start = r'effective batch 4 = 1 process x 4 images \(recipe: 4\), (float32 on cpu|bfloat16 on cuda)\n'
    assert re.search(start, capsys.readouterr().out)
    assert main(['train', str(config), '--resume', *options, 'train_cfg.max_iters=3']) == 0
    assert norms == [pytest.approx(0.01, rel=1e-3)] * 3
    assert min(float(n) for n in re.findall(r'grad_norm: ([\d.]+)', capsys.readouterr().out)) > 0.01

    # mmengine keeps the trained weights where the averaged ones would be, and the other way round
    trained = [{k.removeprefix('module.'): v for k, v in saved(work, i, 'ema_state_dict').items()} for i in (1, 2, 3)]
    average = [saved(work, i) for i in (1, 2, 3)]
    names = [k for k, _ in mmseg_volo.load(work / 'iter_3.pth').named_parameters()]
    moved = 0.0
    for key in names:
        torch.testing.assert_close(average[0][key], trained[0][key])  # starts with what the first update made
        for i in (1, 2):
            torch.testing.assert_close(average[i][key], torch.lerp(average[i - 1][key], trained[i][key], 0.25))
        moved = max(moved, (average[2][key] - trained[2][key]).abs().max().item())
    assert moved > 1e-3  # so that the comparisons below can tell them apart

    torch.save({f'module.{k}': v for k, v in average[2].items()}, tmp_path / 'bare.pth')
    for arguments in ([str(work / 'iter_3.pth')], [str(tmp_path / 'bare.pth'), '--tta']):
        tested.clear()
        assert main(['test', str(config), *arguments, *options]) == 0
        assert tested
        for key, weight in tested[-1].items():
            assert torch.equal(weight, average[2][key]), key
    for key, weight in mmseg_volo.load(work / 'iter_3.pth').state_dict().items():
        assert torch.equal(weight.cpu(), average[2][key]), key
