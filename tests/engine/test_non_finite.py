"""Values that are not finite end a training and replace no good checkpoint; mmengine trains on to exit status 0."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.labels import files
from helpers.resuming import differing
from helpers.tiny_training import train, write_config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

import mmseg_volo
from mmseg_volo.cli.commands import build
from mmseg_volo.config import load_config, shipped_configs
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.checkpoint import newest_checkpoint
from mmseg_volo.engine.hooks.non_finite import NonFiniteGuardHook
from mmseg_volo.errors import UsageError
from mmseg_volo_cli import main


@HOOKS.register_module()
class Poison(Hook):
    """Makes something not finite at some iterations: 'loss', 'gradient', 'statistics', or 'weights' after an update."""

    priority = 'HIGHEST'

    def __init__(self, what: str, at: list[int]):
        self.what, self.at, self.now = what, at, False

    def before_train(self, runner: Any) -> None:
        head = runner.model.decode_head
        spoil = lambda tensor: tensor * float('nan') if self.now else None  # noqa: E731
        if self.what == 'loss':
            head.conv_seg.register_forward_hook(lambda module, args, out: spoil(out))
        elif self.what == 'statistics':
            head.convs[0].conv.register_forward_hook(lambda module, args, out: spoil(out))
        elif self.what == 'gradient':
            head.conv_seg.weight.register_hook(spoil)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.now = batch_idx + 1 in self.at

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if self.now and self.what == 'weights':
            runner.model.decode_head.conv_seg.weight.data[0, 0] = float('inf')


def poisoned(folder: Path, what: str, at: list[int], tries: int = 1, more: str = '') -> Path:
    hooks = f'custom_hooks = [dict(type="NonFiniteGuardHook", tries={tries}), *_base_.custom_hooks[1:], '
    return write_config(folder, f'{hooks}dict(type="Poison", what={what!r}, at={at})]\n{more}')


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 6, 1, 64, 128)


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a training of four iterations, every checkpoint kept."""
    folder = tmp_path_factory.mktemp('trained')
    options = ['default_hooks.checkpoint.max_keep_ckpts=-1']
    assert train(write_config(folder), data, folder / 'work', *options) == 0
    return folder / 'work'


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('what', ['loss', 'gradient'])
def test_nan_ends_the_training_and_keeps_the_last_good_checkpoint(
    what: str, clip: bool, data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config, work = poisoned(tmp_path, what, [3]), tmp_path / 'work'
    assert train(config, data, work, *([] if clip else ['optim_wrapper.clip_grad=None'])) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    how = 'the loss is nan' if what == 'loss' else 'the norm of the gradients is nan'
    assert re.match(rf'error: {how} at iteration 3 \(\S+/leftImg8bit/train/\S+, \S+png\): ', error)
    assert sorted(p.name for p in work.glob('*.pth')) == ['diverged_iter_3.pth', 'iter_2.pth']
    assert newest_checkpoint(work)[0] == work / 'iter_2.pth'
    kept, good = weights(work / 'diverged_iter_3.pth'), weights(work / 'iter_2.pth')
    assert all(torch.equal(kept[k], good[k]) for k in kept if 'running' not in k and 'num_batches' not in k)
    if clip:  # what happened before is what happens without the poison
        assert not differing(good, weights(trained / 'iter_2.pth'))


def test_some_tries_leave_updates_out(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    keep = 'default_hooks.checkpoint.max_keep_ckpts=-1'
    assert train(poisoned(tmp_path, 'gradient', [2, 4], tries=2), data, tmp_path / 'work', keep) == 0
    said = ''.join(capsys.readouterr())
    assert len(re.findall('update skipped, 1 in a row; 2 end the training', said)) == 2
    first, second, third, last = (weights(tmp_path / f'work/iter_{i}.pth') for i in (1, 2, 3, 4))
    same = lambda a, b: all(torch.equal(a[k], b[k]) for k in a if 'running' not in k and 'num_batches' not in k)  # noqa: E731
    assert same(first, second) and not same(second, third) and same(third, last)
    assert train(poisoned(tmp_path, 'loss', [2, 3], tries=2), data, tmp_path / 'next') == 2
    assert 'the loss is nan at iteration 3' in capsys.readouterr().err


def test_statistics_that_are_not_finite_end_it_at_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train(poisoned(tmp_path, 'statistics', [2], tries=9), data, tmp_path / 'work') == 2
    assert re.search(
        r'at iteration 2 .*decode_head.convs.0.bn.running_mean contains NaN or infinity', capsys.readouterr().err
    )
    assert (tmp_path / 'work/iter_1.pth').is_file()


def test_accumulated_gradients_do_not_wait(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config, work = poisoned(tmp_path, 'loss', [3]), tmp_path / 'work'
    options = ['--no-amp', '--accumulate', '2', '--work-dir', str(work), '--cfg-options', f'data_root={data}']
    assert main(['train', str(config), *options]) == 2
    assert 'the loss is nan at iteration 3' in capsys.readouterr().err


def test_weights_that_are_not_finite_replace_no_checkpoint(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train(poisoned(tmp_path, 'weights', [3]), data, tmp_path / 'work') == 2
    error = capsys.readouterr().err
    assert re.search(
        'the checkpoint of iteration 3 was not saved: decode_head.conv_seg.weight contains NaN or infinity', error
    )
    assert [p.name for p in (tmp_path / 'work').glob('*.pth')] == ['iter_2.pth']


def test_with_a_loss_scale_only_losses_count() -> None:
    layer = torch.nn.Linear(1, 1)
    for enabled in (True, False):
        wrapper = OptimWrapper(torch.optim.SGD(layer.parameters(), lr=1.0))
        wrapper.loss_scaler = torch.amp.GradScaler('cpu', enabled=enabled)
        hook = NonFiniteGuardHook()
        hook.before_train(SimpleNamespace(optim_wrapper=wrapper))
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.full((1, 1), float('inf'))
        wrapper.step()
        assert layer.weight.isfinite().all() != enabled  # the scaler, not in use here, would have left it out
        assert bool(hook._reason) != enabled
        layer.weight.data = before
    with pytest.raises(ValueError, match='tries must be 1 or more'):
        NonFiniteGuardHook(tries=0)


def losses() -> list[tuple[str, str, dict]]:
    """The different losses of all experiments, each with one that has it."""
    found = {}
    for name in shipped_configs():
        model = load_config(name).model
        for key in ('decode_head', 'auxiliary_head'):
            if model.get(key):
                loss = dict(model[key].loss_decode)
                found.setdefault(str({k: v for k, v in loss.items() if k != 'loss_weight'}), (name, key, loss))
    assert found
    return [*found.values()]


@pytest.mark.parametrize(('name', 'key', 'loss'), losses())
def test_a_batch_of_ignored_pixels_has_loss_0_and_no_gradient(name: str, key: str, loss: dict) -> None:
    classes = len(loss.get('class_weight') or range(5))
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MODELS.build(
            dict(type='FCNHead', in_channels=4, channels=4, num_classes=classes, num_convs=1, loss_decode=loss)
        )
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 8, 8), 255)))
    found = head.loss([torch.randn(2, 4, 8, 8)], [sample, sample], {})
    total = sum(value for key, value in found.items() if 'loss' in key)
    total.backward()
    assert total == 0
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())


def test_ignored_batches_are_reported_once(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """mmseg logs a loss of 0 for ever."""
    copy = Path(shutil.copytree(data, tmp_path / 'data'))
    for _, label in files(copy):
        Image.fromarray(np.full((64, 128), 255, np.uint8)).save(label)
    assert train(write_config(tmp_path), copy, tmp_path / 'work', '--no-check') == 0
    said = ''.join(capsys.readouterr())
    assert len(re.findall(r'iteration 1: all pixels of the batch are ignored.*\(\S+png, \S+png\)', said)) == 1
    assert 'iteration 2: all' not in said


def test_weights_that_are_not_finite_are_refused_by_every_command(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = torch.load(trained / 'iter_4.pth', weights_only=True)
    content['state_dict']['decode_head.conv_seg.bias'][1] = float('nan')
    torch.save(content, tmp_path / 'nan.pth')
    torch.save({**content, 'state_dict': {}}, tmp_path / 'empty.pth')
    config, images = str(trained.parent / 'small.py'), str(data / 'leftImg8bit/val')
    for name, message in (('nan', 'NaN or infinite: decode_head.conv_seg.bias'), ('empty', 'no weights found')):
        checkpoint = str(tmp_path / f'{name}.pth')
        commands = (
            ['test', config, checkpoint, '--cfg-options', f'data_root={data}'],
            ['predict', checkpoint, images, '--out', str(tmp_path / 'out')],
            [
                'train',
                config,
                '--work-dir',
                str(tmp_path),
                '--cfg-options',
                f'data_root={data}',
                f'load_from={checkpoint}',
            ],
        )
        for command in commands:
            assert main(command) == 2
            error = capsys.readouterr().err.strip().splitlines()[-1]
            assert error.startswith('error: ') and message in error
        with pytest.raises(UsageError, match=message):
            mmseg_volo.load(checkpoint)


def test_a_test_without_a_checkpoint_is_refused(data: Path, trained: Path, tmp_path: Path) -> None:
    cfg = load_config(trained.parent / 'small.py', {'data_root': str(data)})
    cfg.work_dir = str(tmp_path)
    cfg.visualizer.name = 'no checkpoint'
    with pytest.raises(UsageError, match='a test without a checkpoint would score random weights'):
        build(cfg).test()
    cfg.load_from = str(trained / 'iter_4.pth')
    assert build(cfg).test()['mIoU'] >= 0


def test_a_mistyped_key_beside_the_right_one_of_a_base_is_refused(tmp_path: Path) -> None:
    for wrong, right in (('optim_wraper', 'optim_wrapper'), ('custom_hook', 'custom_hooks'), ('modle', 'model')):
        with pytest.raises(UsageError, match=f'unknown key {wrong!r}; did you mean {right!r}'):
            load_config(write_config(tmp_path, f'{wrong} = dict()\n'))
    variables = ('dims', 'train_pipeline_2', 'my_checkpoint', 'optimizer', 'dataset_type', 'img_scale', 'ham_norm_cfg')
    load_config(write_config(tmp_path, ''.join(f'{name} = 1\n' for name in variables)))
