"""Several processes: two on this machine's CPU, joined by gloo.

Started as a user starts them, or, where that is not what is tested, forked from one that has imported all of it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from helpers.processes import CONFIG, ENV

from mmseg_volo.config import CONFIGS
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo_cli import main

ENV |= {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images to train on and five to validate, of which the second of two processes gets the two large ones."""
    root = scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 8, 5, 64, 128)
    for path in [p for i in (1, 3) for p in root.rglob('val/*/*.png') if f'_00000{i}_' in p.name]:
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), -1), (192, 96), interpolation=cv2.INTER_NEAREST))
    for path in root.rglob('gtFine/train/*/*.png'):  # every pixel has a label
        label = cv2.imread(str(path), -1)
        cv2.imwrite(str(path), np.where(label == 255, 0, label))
    sizes = {p.name: cv2.imread(str(p)).shape[:2] for p in root.rglob('leftImg8bit/val/*/*.png')}
    assert sorted(sizes.values()) == [(64, 128)] * 3 + [(96, 192)] * 2
    return root


@pytest.fixture(scope='module')
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('config') / 'small.py'
    path.write_text(CONFIG.format(configs=CONFIGS, norm=None))
    return path


def two_processes(work: Path, data: Path, *command: str, options: tuple[str, ...] = ()) -> str:
    """What `tools/dist_*.sh` printed, which must succeed; it runs beside its work dir."""
    work.mkdir(exist_ok=True)
    tool, *rest = command
    arguments = ['--work-dir', str(work), '--cfg-options', f'data_root={data}', *options]
    run = subprocess.run(
        ['sh', str(ROOT / f'tools/{tool}'), *rest, *arguments], cwd=work, env=ENV, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def member(rank: int, port: int, argv: list[str], log: Path) -> None:
    """One of two processes as torchrun starts them."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1')
    os.environ |= dict(MASTER_PORT=str(port), CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
    os.chdir(log.parent)
    multiprocessing.set_start_method('fork', force=True)  # as in a process started by a user
    status = main([*argv, '--launcher', 'pytorch'])
    threads = [comm.read_text().strip() for comm in Path('/proc/self/task').glob('*/comm')]
    # alive at exit, they now and then abort it; torch's DTensors keep theirs in a cache
    assert '--fsdp' in argv or not [name for name in threads if 'gloo' in name], threads
    sys.exit(status)


def two_forks(work: Path, data: Path, *command: str, options: tuple[str, ...] = ()) -> str:
    """What two processes printed, which must succeed."""
    work.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    argv = [*command, '--work-dir', str(work), '--cfg-options', f'data_root={data}', *options]
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmseg_volo.cli.commands', 'mmseg_volo.register_all'])
    log = work / f'said{len([*work.glob("said*")])}'
    pair = [context.Process(target=member, args=(rank, port, argv, log)) for rank in (0, 1)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(120)
        process.kill()
    said = log.read_text()
    assert [process.exitcode for process in pair] == [0, 0], said
    return said


def one_process(work: Path, data: Path, *command: str, options: tuple[str, ...] = ()) -> None:
    assert main([*command, '--work-dir', str(work), '--cfg-options', f'data_root={data}', *options]) == 0


@pytest.fixture(scope='module')
def ddp(config: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    work = tmp_path_factory.mktemp('ddp')
    return work, two_processes(work, data, 'dist_train.sh', str(config), '2')


def curves(work: Path, iteration: int = 6) -> dict[str, torch.Tensor]:
    """What was logged at each iteration since the start of the training."""
    scalars = torch.load(work / f'iter_{iteration}.pth', weights_only=True)['message_hub']['log_scalars']
    found = {name: scalars[f'train/{name}']['log_history'] for name in ('loss', 'decode.acc_seg', 'grad_norm', 'lr')}
    assert all(len(curve) == iteration for curve in found.values())
    return found


def assert_same_training(work: Path, other: Path, iteration: int = 6) -> None:
    """The same curves to 1e-4 or nearer, and the same weights and states of the optimiser, in plain tensors."""
    torch.testing.assert_close(curves(work, iteration), curves(other, iteration), rtol=2e-5, atol=2e-6)
    files = [torch.load(w / f'iter_{iteration}.pth', weights_only=True) for w in (work, other)]
    one, two = ({'weights': f['state_dict'], 'states': f['optimizer']['state']} for f in files)
    torch.testing.assert_close(dict(one['weights']), dict(two['weights']), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one['states'], two['states'], rtol=1e-3, atol=1e-4)
    assert files[0]['optimizer']['param_groups'] == files[1]['optimizer']['param_groups']


def scores(said: str) -> list[str]:
    """The last table of classes and the line of means, without times."""
    table = [line for line in said.splitlines() if line.startswith('|')]
    means = re.findall(r'aAcc: \S+ +mIoU: \S+ +mAcc: \S+', said)
    assert table and means
    return [*table[-len(table) // said.count('per class results') :], means[-1]]


def test_the_curve_of_two_processes_is_that_of_one(
    ddp: tuple[Path, str], config: Path, data: Path, tmp_path: Path
) -> None:
    assert 'effective batch 4 = 2 processes x 2 images (recipe: 4), float32 on cpu\n' in ddp[1]
    assert not re.search('warn|traceback|error|\\*\\*\\*', ddp[1], re.I), ddp[1]
    one_process(tmp_path, data, 'train', str(config), options=('train_dataloader.batch_size=4',))
    assert_same_training(ddp[0], tmp_path)
    curve = curves(tmp_path)
    assert curve['loss'][0] - curve['loss'][-1] > 0.1 and curve['grad_norm'].max() > 0.5  # it learns, and is clipped


def test_two_processes_score_as_one(
    ddp: tuple[Path, str], config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint = str(ddp[0] / 'iter_6.pth')
    one_process(tmp_path / 'w', data, 'test', str(config), checkpoint)
    assert scores(capsys.readouterr().out) == scores(ddp[1])  # the validation after the last iteration
    (alone,), (together,) = (tmp_path.glob('w/2*/test.json'), ddp[0].glob('2*/val.json'))
    records = [json.loads(path.read_text()) for path in (alone, together)]
    assert records[0]['confusion'] == records[1]['confusion'] and len(records[1]['images']) == 5  # none counted twice
    assert records[0]['worst'] == records[1]['worst'] and (ddp[0] / 'report.html').is_file()
    assert 'mmseg_volo.launch 2 train' in (together.parent / 'session.json').read_text()
    out = ['--tta', '--out', str(tmp_path / 'one')]
    one_process(tmp_path / 'w', data, 'test', str(config), checkpoint, *out)
    out = ['--tta', '--out', str(tmp_path / 'two')]
    said = two_processes(tmp_path / 'w', data, 'dist_test.sh', str(config), checkpoint, '2', *out)
    assert scores(capsys.readouterr().out) == scores(said)
    masks = {n: {p.name: cv2.imread(str(p), -1) for p in (tmp_path / n).iterdir()} for n in ('one', 'two')}
    assert masks['one'].keys() == masks['two'].keys() and len(masks['one']) == 5
    assert all(np.array_equal(mask, masks['two'][name]) for name, mask in masks['one'].items())
    assert len(np.unique(np.concatenate([mask.ravel() for mask in masks['one'].values()]))) > 2


def test_two_processes_write_the_masks_of_one(
    ddp: tuple[Path, str], config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint, out = str(ddp[0] / 'iter_6.pth'), ['--format-only', '--out']
    one_process(tmp_path / 'w', data, 'test', str(config), checkpoint, *out, str(tmp_path / 'one'))
    said = two_forks(tmp_path / 'w', data, 'test', str(config), checkpoint, *out, str(tmp_path / 'two'))
    assert '5 masks are in' in said
    masks = [{p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ('one', 'two')]
    assert masks[0] == masks[1] and len(masks[0]) == 5


def test_fsdp_trains_as_ddp_and_leaves_plain_checkpoints(
    ddp: tuple[Path, str], config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    work, half = tmp_path / 'work', ('train_cfg.max_iters=3',)
    said = two_forks(work, data, 'train', str(config), '--fsdp', options=half)
    assert 'effective batch 4 = 2 processes x 2 images (recipe: 4), float32 on cpu, FSDP\n' in said
    assert not re.search('warn|traceback|error|\\*\\*\\*', said, re.I), said
    assert_same_training(work, ddp[0], 3)
    assert list(work.glob('best_mIoU_iter_3.pth'))
    # one process scores it as two did, from the config that the training left, and goes on with it
    one_process(tmp_path / 'test', data, 'test', str(work / 'small.py'), str(work / 'iter_3.pth'))
    assert scores(capsys.readouterr().out) == scores(said)
    alone = tmp_path / 'alone'
    alone.mkdir()
    (alone / 'last_checkpoint').write_text(str(work / 'iter_3.pth'))
    one_process(alone, data, 'train', str(config), '--resume', options=('train_dataloader.batch_size=4',))
    assert_same_training(alone, ddp[0])
    # and so do two
    two_forks(work, data, 'train', str(config), '--fsdp', '--resume')
    assert_same_training(work, ddp[0])


def test_fsdp_says_what_it_needs(config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    averaged = tmp_path / 'averaged.py'
    averaged.write_text(config.read_text() + "custom_hooks = [dict(type='EMAHook')]\n")
    train = ['train', str(averaged), '--work-dir', str(tmp_path), '--fsdp', '--cfg-options', f'data_root={data}']
    assert main(train) == 2
    assert 'tools/dist_train.sh CONFIG GPUS --fsdp' in capsys.readouterr().err
    assert main([*train, '--launcher', 'pytorch']) == 2
    assert 'EMAHook keeps a second copy of the model' in capsys.readouterr().err
