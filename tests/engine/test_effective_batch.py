"""The recipe's batch on a machine that takes fewer images at once: accumulated gradients, scaled rates, processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmseg_volo.config import CONFIGS, load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.effective_batch import EffectiveBatch, accumulate, check_norms
from mmseg_volo.errors import UsageError
from mmseg_volo_cli import main

# no norm over images, no random numbers in the model: what a batch gives is the mean of what its images give
CONFIG = """
_base_ = ['{configs}/_base_/models/segformer.py', '{configs}/_base_/datasets/demo.py',
          '{configs}/_base_/schedules/adamw_80k.py', '{configs}/_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(type='CAFormer', arch=dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32])),
    decode_head=dict(
        in_channels=[8, 16, 32, 32], channels=16, num_classes=_base_.num_classes, norm_cfg=None, dropout_ratio=0,
        loss_decode=dict(avg_non_ignore=False),
    ),
)
# a large eps: without it Adam turns the rounding errors of tiny gradients into whole steps
optim_wrapper = dict(optimizer=dict(lr=0.3, eps=0.01))
param_scheduler = [dict(type='LinearLR', start_factor=1 / 60, begin=0, end=1500, by_epoch=False)]  # few iterations
train_cfg = dict(max_iters=2, val_interval=2)
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=0.25, begin_iter=1)]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1, save_best=None))
randomness = dict(seed=0)
"""
QUIET = [f'{k}_dataloader.{o}' for k in ('train', 'val') for o in ('num_workers=0', 'persistent_workers=False')]


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 8, 1, 64, 128)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'small.py'
    path.write_text(CONFIG.format(configs=CONFIGS))
    return path


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The learning rate of each update."""
    seen, step = [], torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args, **kwargs) -> None:
        seen.append(self.param_groups[0]['lr'])
        step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, 'step', spy)
    yield seen


def train(config: Path, data: Path, work: Path, images: int, *arguments: str, options: tuple[str, ...] = ()) -> int:
    options = (f'data_root={data}', f'train_dataloader.batch_size={images}', *QUIET, *options)
    # bfloat16, the default on a GPU, is too coarse to compare updates
    return main(['train', str(config), '--no-amp', '--work-dir', str(work), *arguments, '--cfg-options', *options])


def test_accumulated_updates_are_those_of_the_whole_batch(
    config: Path, data: Path, tmp_path: Path, rates: list[float], capsys: pytest.CaptureFixture
) -> None:
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert train(config, data, whole, 4) == 0
    first = list(rates)
    assert 'effective batch 4 = 1 process x 4 images (recipe: 4), ' in capsys.readouterr().out
    rates.clear()
    assert train(config, data, parts, 2, '--accumulate', '2') == 0
    said = capsys.readouterr().out
    assert 'effective batch 4 = 1 process x 2 images x 2 accumulated (recipe: 4), ' in said
    assert len(re.findall(r'Iter\(val\).*mIoU', said)) == 1
    assert rates == first and first[1] > first[0]
    assert sorted(p.name for p in parts.glob('iter_*.pth')) == ['iter_2.pth', 'iter_4.pth']
    start = torch.load(whole / 'iter_1.pth', weights_only=True)
    one, other = (torch.load(p, weights_only=True) for p in (whole / 'iter_2.pth', parts / 'iter_4.pth'))
    for kind in ('state_dict', 'ema_state_dict'):  # the averaged weights and the trained ones
        moved = 0.0
        for key, value in one[kind].items():
            if key != 'steps':
                torch.testing.assert_close(other[kind][key], value, rtol=1e-5, atol=2e-6, msg=key)
                moved = max(moved, (value - start[kind][key]).abs().max().item())
        assert moved > 1e-4
    assert other['ema_state_dict']['steps'] == one['ema_state_dict']['steps'] == 2

    # an iteration of one is another part of the schedule than an iteration of the other
    assert train(config, data, parts, 4, '--resume') == 2
    assert re.search('iter_4.pth comes from a training with --accumulate 2.*not with 1', capsys.readouterr().err)
    assert train(config, data, parts, 2, '--resume', '--accumulate', '2', options=('train_cfg.max_iters=3',)) == 0
    assert (parts / 'iter_6.pth').is_file()


def test_the_rate_follows_the_effective_batch(
    config: Path, data: Path, tmp_path: Path, rates: list[float], capsys: pytest.CaptureFixture
) -> None:
    short = ('train_cfg.max_iters=1', 'train_cfg.val_interval=1')
    assert train(config, data, tmp_path / 'a', 2, options=short) == 0
    hint = '--accumulate 2 keeps the recipe, or scale the learning rate by --auto-scale-lr\n'
    assert re.search(rf'effective batch 2 = 1 process x 2 images \(recipe: 4\), .*; {hint}', capsys.readouterr().out)
    assert train(config, data, tmp_path / 'b', 2, '--auto-scale-lr', '--accumulate', '4', options=short) == 0
    said = 'effective batch 8 = 1 process x 2 images x 4 accumulated (recipe: 4, learning rate x2), '
    assert said in capsys.readouterr().out
    assert rates[1] == pytest.approx(2 * rates[0])


@pytest.mark.parametrize(
    ('batch', 'size', 'suggestion'),
    [
        (EffectiveBatch(4, 2, 1, 8), 8, ''),
        (EffectiveBatch(1, 2, 1, None), 2, ''),
        (EffectiveBatch(1, 2, 1, 8, scaled=True), 2, ''),
        (EffectiveBatch(1, 2, 1, 8), 2, '--accumulate 4 keeps the recipe, or scale'),
        (EffectiveBatch(1, 2, 3, 8), 6, '--accumulate 4 keeps'),
        (EffectiveBatch(1, 3, 1, 8), 3, '--accumulate 4 with --cfg-options train_dataloader.batch_size=2 keeps'),
        (EffectiveBatch(8, 2, 1, 8), 16, '--cfg-options train_dataloader.batch_size=1 keeps'),
        (EffectiveBatch(4, 2, 2, 8), 16, 'leaving --accumulate out keeps'),
        (
            EffectiveBatch(3, 2, 1, 8),
            6,
            '8 images cannot be divided evenly among 3 processes: start another number, or scale',
        ),
    ],
)
def test_the_suggestion(batch: EffectiveBatch, size: int, suggestion: str) -> None:
    assert batch.size == size and str(batch).startswith(f'effective batch {size} = {batch.processes} process')
    assert batch.suggestion().startswith(suggestion) and bool(batch.suggestion()) == bool(suggestion)


BAD = {
    'expected 1 or more, got 0': '--accumulate 0',
    r'effective batch 12 = 1 process x 4 images x 3 accumulated \(recipe: 4\): leaving': '--accumulate 3',
    'effective batch 6 = .*: --accumulate 2 keeps': '--accumulate 3 --cfg-options train_dataloader.batch_size=2',
    'does not state the batch size': '--auto-scale-lr --cfg-options auto_scale_lr=None',
    'use only one of the two': '--accumulate 2 --cfg-options optim_wrapper.accumulative_counts=2',
    'got also .*layer_decay': '--cfg-options optim_wrapper.constructor=SegOptimWrapperConstructor '
    'optim_wrapper.paramwise_cfg.layer_decay=0.9',
}


@pytest.mark.parametrize('message', BAD)
def test_a_batch_that_does_not_fit_is_one_sentence(
    message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = BAD[message] if '--cfg-options' in BAD[message] else f'{BAD[message]} --cfg-options'
    assert main(['train', 'volo_demo', *arguments.split(), f'data_root={data}']) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(message, error) and error.startswith('error: ') and len(error.splitlines()) == 1
    assert not list(tmp_path.rglob('*.pth'))


def test_processes_of_the_launcher_count(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv('SLURM_NTASKS', '3')
    monkeypatch.setattr('mmseg_volo.cli.commands.check_data', lambda *_: None)
    start = ['--cfg-options', 'model.backbone.init_cfg=None']  # no weights are fetched
    assert main(['train', 'volo_d4_cityscapes', '--launcher', 'slurm', '--accumulate', '2', *start]) == 2
    wanted = (
        r'effective batch 12 = 3 processes x 2 images x 2 accumulated \(recipe: 8\): '
        r'8 images cannot be divided evenly among 3'
    )
    assert re.search(wanted, capsys.readouterr().err)


def test_one_image_at_once_is_refused_where_batchnorm_sees_one_pixel_of_it() -> None:
    def model(norm: str, **more: int) -> nn.Module:
        cfg = load_config('volo_camvid').model  # UPerNet
        cfg.backbone.init_cfg = None
        cfg.decode_head.norm_cfg = dict(type=norm, **more)
        with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
            return MODELS.build(cfg)

    with pytest.raises(UsageError, match='psp_modules.0 pools to one pixel, .* needs at least 2 images at once, got 1'):
        check_norms(model('BN'), EffectiveBatch(1, 1))
    with pytest.raises(UsageError, match='got 1'):
        check_norms(model('BN'), EffectiveBatch(2, 1))
    for fine in (
        (model('BN'), EffectiveBatch(1, 2)),
        (model('SyncBN'), EffectiveBatch(2, 1)),
        (model('GN', num_groups=8), EffectiveBatch(1, 1)),
    ):
        check_norms(*fine)


def test_all_that_counts_iterations_grows() -> None:
    cfg = load_config('volo_d4_cityscapes')
    schedule = cfg.param_scheduler.copy()
    cfg.train_cfg.update(val_begin=10, dynamic_intervals=[(0, 8000), (70000, 1000)])
    accumulate(cfg, 4)
    loop = cfg.train_cfg
    assert (loop.max_iters, loop.val_interval, loop.val_begin) == (320_000, 32_000, 40)
    assert loop.dynamic_intervals == [(0, 32_000), (280_000, 4000)]
    assert cfg.default_hooks.checkpoint.interval == 32_000
    assert cfg.param_scheduler == schedule  # goes on once per update
    with pytest.raises(UsageError, match='SegTrainLoop'):
        cfg = load_config('volo_d4_cityscapes')
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)
        accumulate(cfg, 2)
