"""`--resume` with other wishes than before: done and said, or refused; never without a word."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import folder_data as fd
from helpers.tiny_training import train, write_config

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.checkpoint import newest_checkpoint
from mmseg_volo_cli import main

# schedules that end with the training, and an optimiser whose settings are plain
SCHEDULED = """
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
                     constructor='SegOptimWrapperConstructor')
param_scheduler = [dict(type='LinearLR', start_factor=0.1, begin=0, end=2, by_epoch=False),
                   dict(type='PolyLR', eta_min=0, power=0.9, begin=2, end=4, by_epoch=False)]
"""


OTHERS = '[car,person,sky,terrain,vegetation,traffic sign,pole,building,sidewalk,road]'  # backwards


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 1, 64, 128)


@pytest.fixture(scope='module')
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config of 4 iterations, and the work dir of its training."""
    folder = tmp_path_factory.mktemp('done')
    config = write_config(folder, SCHEDULED)
    assert train(config, data, folder / 'work', '--no-check') == 0
    return config, folder / 'work'


def rates(said: str) -> list[float]:
    return [float(rate) for rate in re.findall(r'Iter\(train\).* lr: (\S+)', said)]


def go_on(done: tuple[Path, Path], data: Path, work: Path, *more: str) -> int:
    if not work.exists():
        shutil.copytree(done[1], work)
    return train(done[0], data, work, '--no-check', '--resume', *more)


def test_a_longer_training_follows_the_longer_schedule(
    done: tuple[Path, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert go_on(done, data, tmp_path / 'work', 'train_cfg.max_iters=6') == 0
    said = capsys.readouterr().out
    assert 'lengthened from 4 to 6 iterations' in said and "follow the config's schedule from here" in said
    whole = tmp_path / 'whole'
    long = write_config(tmp_path, SCHEDULED.replace('end=4', 'end=6') + 'train_cfg = dict(max_iters=6)\n')
    assert train(long, data, whole, '--no-check') == 0
    assert rates(said) == rates(capsys.readouterr().out)[4:] and rates(said)[0] > 0
    # the same command again, and one of yet another length
    assert go_on(done, data, tmp_path / 'work', 'train_cfg.max_iters=6') == 0
    said = capsys.readouterr().out
    assert (
        'all 6 iterations are done, so nothing is trained: lengthen the training by --cfg-options train_cfg.max_iters=N'
        in said
    )
    assert 'lengthened' not in said and 'learning rates follow' not in said
    assert go_on(done, data, tmp_path / 'work', 'train_cfg.max_iters=8') == 0
    said = capsys.readouterr().out
    assert 'lengthened from 6 to 8 iterations' in said and rates(said)[0] > 0
    # one that is over is told so, and nothing of what would be otherwise
    shorter = ('train_cfg.max_iters=3', 'optim_wrapper.optimizer.lr=0.5')
    assert go_on(done, data, tmp_path / 'work', *shorter) == 0
    said = capsys.readouterr().out
    assert 'all 3 iterations are done, so nothing is trained' in said and 'of the config is' not in said


def test_settings_of_the_optimiser_are_the_config_s(
    done: tuple[Path, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = [f'optim_wrapper.optimizer.{option}' for option in ('lr=0.01', 'weight_decay=0.2')]
    assert go_on(done, data, tmp_path / 'work', 'train_cfg.max_iters=6', *options, 'randomness.seed=9') == 0
    said = capsys.readouterr().out
    assert 'the learning rate of the config is 0.01, that of the checkpoint 0.001' in said
    assert 'weight_decay of the config is 0.2, that of the checkpoint 0.01' in said
    assert 'randomness.seed=9 has no effect: the training continues with its own seed, 3' in said
    assert rates(said)[0] > 1e-3
    state = torch.load(newest_checkpoint(tmp_path / 'work')[0], weights_only=True)['optimizer']
    assert {group['weight_decay'] for group in state['param_groups']} == {0.2, 0.0}
    assert state['param_groups'][0]['initial_lr'] == 0.01


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['optim_wrapper.optimizer.type=SGD'], 'was trained by AdamW, but the config has SGD: resume it with'),
        (['optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult=10'], 'other groups of parameters than those'),
        (['train_dataloader.dataset.metainfo.classes=' + OTHERS], 'was trained on other classes'),
    ],
)
def test_what_cannot_go_on_is_refused(
    options: list[str], said: str, done: tuple[Path, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert go_on(done, data, tmp_path / 'work', 'train_cfg.max_iters=6', *options) == 2
    assert re.search(said, capsys.readouterr().err)
    assert newest_checkpoint(tmp_path / 'work')[0].name == 'iter_4.pth'


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('optim_wrapper.optimizer.type=SGD', 'optim_wrapper of the config cannot be built: .*betas'),
        ('param_scheduler.1.begin=9', 'param_scheduler of the config cannot be built: end should be larger'),
        ('train_dataloader.batch_size=-1', 'train_cfg or train_dataloader of the config cannot be built: batch_size'),
    ],
)
def test_what_is_built_late_is_said_in_a_sentence(
    option: str, said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = SCHEDULED.replace('weight_decay=0.01', 'weight_decay=0.01, betas=(0.9, 0.99)')
    assert train(write_config(tmp_path, more), data, tmp_path / 'work', '--no-check', option) == 2
    assert re.search(said, capsys.readouterr().err)


def test_a_schedule_that_has_ended_is_said(
    done: tuple[Path, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train(done[0], data, tmp_path / 'work', '--no-check', 'train_cfg.max_iters=5') == 0
    assert 'after 4 of 5 updates, where param_scheduler.1 (PolyLR) ends' in capsys.readouterr().out
    assert go_on(done, data, tmp_path / 'work', 'train_cfg.max_iters=5') == 0  # the same training
    assert 'learning rates follow' not in capsys.readouterr().out


def test_a_work_dir_is_of_one_training(
    done: tuple[Path, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """B stands at 2, and A's 4 is asked for, or lies beside it."""
    work = tmp_path / 'work'
    assert train(done[0], data, work, '--no-check', 'train_cfg.max_iters=2') == 0
    assert go_on(done, data, work, f'load_from={done[1] / "iter_4.pth"}', 'train_cfg.max_iters=5') == 2
    assert 'iter_4.pth belongs to another training than ' in capsys.readouterr().err
    shutil.copy(done[1] / 'iter_4.pth', work)
    path, wrong = newest_checkpoint(work)
    assert path == work / 'iter_2.pth' and wrong == ['iter_4.pth is skipped: it belongs to another training']
    (work / 'last_checkpoint').unlink()
    assert newest_checkpoint(work)[0] == work / 'iter_4.pth'


def test_overwrite_begins_anew(
    done: tuple[Path, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    work = tmp_path / 'work'
    shutil.copytree(done[1], work)
    (work / 'notes.txt').write_text('mine')
    before = {path.name for path in work.iterdir()}
    assert train(done[0], data, work, '--no-check') == 2
    assert '--overwrite removes it and starts anew' in capsys.readouterr().err
    assert train(done[0], data, work, '--no-check', '--overwrite', 'train_cfg.max_iter=2') == 2  # a bad config
    assert {path.name for path in work.iterdir()} == before
    assert train(done[0], data, work, '--no-check', '--overwrite', 'train_cfg.max_iters=2') == 0
    assert [path.name for path in work.glob('iter_*.pth')] == ['iter_2.pth'] and (work / 'notes.txt').is_file()
    assert not {path.name for path in done[1].glob('2*')} & {path.name for path in work.glob('2*')}
    assert train(done[0], data, work, '--no-check', '--overwrite', '--resume') == 2


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['volo_demo', '--epochs', '3'], '--epochs goes with --data .*: --cfg-options train_cfg.max_iters=N'),
        (['volo_demo', '--seed', '0'], '--seed goes with --data .*: --cfg-options randomness.seed=N'),
        (['volo_demo', '--classes', 'a', 'b'], '--classes goes with --data'),
        (['volo_demo', '--plan-only'], '--plan-only goes with --data'),
        (
            ['--data', 'd', '--model', 'volo_demo', '--plan-only', '--resume'],
            '--plan-only trains nothing',
        ),
        (
            ['--data', 'd', '--model', 'volo_demo', '--plan-only', '--amp', '--cfg-options', 'a.b=1'],
            '--plan-only trains nothing, and --amp, --cfg-options would not be in',
        ),
        (['volo_demo', '--resume', '--overwrite'], 'give one of them'),
    ],
)
def test_options_without_effect(options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['train', '--work-dir', str(tmp_path / 'work'), *options]) == 2
    assert re.search(said, capsys.readouterr().err) and not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (
            ['--outputs', 'masks,areas', '--opacity', '0'],
            '--opacity is for overlays, but --outputs names only masks,areas',
        ),
        (
            ['--outputs', 'overlays', '--frames'],
            '--video-masks-as-png is for masks and confidence, but --outputs names only overlays',
        ),
    ],
)
def test_options_of_predict_without_effect(options: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    assert main(['predict', 'none.pth', 'none.png', '--out', 'out', *options]) == 2
    assert said in capsys.readouterr().err


def test_a_share_of_data_that_are_split(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for split in ('train', 'val'):
        fd.write(tmp_path / 'data' / split, 2)
    command = ['train', '--data', str(tmp_path / 'data'), '--model', 'volo_demo', '--work-dir', str(tmp_path / 'work')]
    assert main([*command, '--val-share', '0.5']) == 2
    assert '--val-share is for data without a split' in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command of a training of two epochs of a folder, which is done."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    data, model = fd.write(Path('data'), 6), write_config(tmp_path, SCHEDULED)
    command = ['train', '--data', str(data), '--model', str(model), '--work-dir', 'work', '--no-amp']
    assert main([*command, '--epochs', '2', '--seed', '3', '--size', '64']) == 0  # of 5 images
    return command


def test_more_epochs_lengthen_a_recipe(folder: list[str], capsys: pytest.CaptureFixture) -> None:
    recipe = Path('work/recipe/work.py')
    before = recipe.read_text()
    same = ['--epochs', '2', '--seed', '3', '--size', '64', '64', '--batch', '2']
    capsys.readouterr()
    assert main([*folder, '--resume', *same]) == 0
    assert 'all 5 iterations are done' in capsys.readouterr().out and recipe.read_text() == before
    assert main([*folder, '--resume', '--epochs', '4']) == 0
    said = capsys.readouterr().out
    assert 'lengthened from 5 to 10 iterations' in said and Path('work/iter_10.pth').is_file()
    assert (
        'max_iters=10,' in recipe.read_text() and 'length: 10 iterations of 2 images = 4 epochs' in recipe.read_text()
    )
    assert 'length   10 iterations' in Path('work/recipe/understood.txt').read_text()
    recipe.write_text(recipe.read_text() + '\n# mine\n')
    assert main([*folder, '--resume', '--epochs', '5']) == 0  # of an edited recipe, too
    assert 'max_iters=13,' in recipe.read_text() and '# mine' in recipe.read_text()
    assert main([*folder, '--resume', '--epochs', '3']) == 2
    assert '8 iterations, and 13 are done' in capsys.readouterr().err
    recipe.write_text(recipe.read_text().replace('max_iters=13', 'max_iters=12 + 1'))
    assert main([*folder, '--resume', '--epochs', '9']) == 2
    assert 'train_cfg.max_iters is no number there: set it to 23, and leave out --epochs' in capsys.readouterr().err


def test_a_recipe_is_gone_on_with_as_it_was_begun(folder: list[str], capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    wishes = ['--seed', '4', '--size', '96', '--batch', '8', '--classes', 'a', 'b', 'c', '--skip-unpaired']
    assert main([*folder, '--resume', *wishes]) == 2
    error = capsys.readouterr().err
    for said in ('--seed 3, not 4', '--size 64 64, not 96', '--batch 2, not 8', 'no --classes, not a b c'):
        assert said in error
    assert 'no --skip-unpaired' in error and len(error.splitlines()) == 1
    shutil.copytree('data', 'others')
    assert main([*folder, '--resume', '--data', 'others']) == 2
    assert re.search('--data .*data, not .*others', capsys.readouterr().err)
    assert main([*folder, '--overwrite', '--epochs', '1', '--seed', '4']) == 0
    assert [path.name for path in Path('work').glob('iter_*.pth')] == ['iter_3.pth']
