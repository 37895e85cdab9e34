"""Several processes: two on this machine's CPU, joined by gloo, started as a user starts them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mmseg_volo.cli import main
from mmseg_volo.config import CONFIGS
from mmseg_volo.datasets import scenes
from mmseg_volo.errors import UsageError
from mmseg_volo.launch import explain, torchrun_options

# No norm over images, no random numbers in the model or the pipeline: a batch gives the mean of what its images give.
# The loss is the mean over pixels with a label, of each process: the labels must leave out equally many, here none.
CONFIG = """
_base_ = ['{configs}/_base_/models/segformer.py', '{configs}/_base_/datasets/demo.py',
          '{configs}/_base_/schedules/adamw_80k.py', '{configs}/_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(size=(64, 128)),
    backbone=dict(type='CAFormer', arch=dict(depths=[1, 1, 1, 2], dims=[8, 16, 32, 32]), with_cp=True),
    decode_head=dict(
        in_channels=[8, 16, 32, 32], channels=16, num_classes=_base_.num_classes, norm_cfg={norm}, dropout_ratio=0
    ),
    test_cfg=dict(mode='slide', crop_size=(64, 128), stride=(48, 96)),
)
# a large eps: without it Adam turns the rounding errors of tiny gradients into whole steps
optim_wrapper = dict(
    optimizer=dict(lr=0.5, eps=0.01), clip_grad=dict(max_norm=0.5), paramwise_cfg=dict(layer_decay_rate=0.9)
)
fixed = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(128, 64)),
    dict(type='PackSegInputs'),
]
here = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=2, sampler=dict(seed=0), dataset=dict(pipeline=fixed), **here)
val_dataloader = here
test_dataloader = here
train_cfg = dict(max_iters=6, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=3, max_keep_ckpts=-1), logger=dict(interval=1))
randomness = dict(seed=0)
"""
ENV = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'CUDA_VISIBLE_DEVICES': ''}
ENV |= {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images to train on and five to validate, of two sizes: one of two processes has more, and other ones."""
    root = scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 8, 5, 64, 128)
    for path in [p for i in (1, 2) for p in root.rglob('val/*/*.png') if f'_00000{i}_' in p.name]:
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
    said = two_processes(
        tmp_path / 'w', data, 'dist_test.sh', str(config), checkpoint, '2', *out, str(tmp_path / 'two')
    )
    assert '5 masks are in' in said
    masks = [{p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ('one', 'two')]
    assert masks[0] == masks[1] and len(masks[0]) == 5


def test_fsdp_trains_as_ddp_and_leaves_plain_checkpoints(
    ddp: tuple[Path, str], config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    work, half = tmp_path / 'work', ('train_cfg.max_iters=3',)
    said = two_processes(work, data, 'dist_train.sh', str(config), '2', '--fsdp', options=half)
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
    two_processes(work, data, 'dist_train.sh', str(config), '2', '--fsdp', '--resume')
    assert_same_training(work, ddp[0])


def test_fsdp_says_what_it_needs(config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train = ['train', str(config), '--work-dir', str(tmp_path), '--fsdp', '--cfg-options', f'data_root={data}']
    assert main(train) == 2
    assert 'tools/dist_train.sh CONFIG GPUS --fsdp' in capsys.readouterr().err
    average = "custom_hooks=[{'type':'EMAHook'}]"
    assert main([*train, average, '--launcher', 'pytorch']) == 2
    assert 'EMAHook keeps a second copy of the model' in capsys.readouterr().err


def processes_below(pid: int) -> dict[str, int]:
    """Process ids by their RANK."""
    children = map(int, Path(f'/proc/{pid}/task/{pid}/children').read_text().split())
    found = {}
    for child in children:
        variables = Path(f'/proc/{child}/environ').read_text().split('\0')
        found |= {v.removeprefix('RANK='): child for v in variables if v.startswith('RANK=')}
    return found


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds the processes under /proc')
def test_a_killed_process_ends_the_job_in_one_clear_line(data: Path, tmp_path: Path) -> None:
    config = tmp_path / 'normed.py'
    config.write_text(CONFIG.format(configs=CONFIGS, norm="dict(type='SyncBN')"))
    options = [f'data_root={data}', 'train_cfg.max_iters=100000', 'train_cfg.val_interval=100000']
    command = ['sh', str(ROOT / 'tools/dist_train.sh'), str(config), '2', '--work-dir', str(tmp_path)]
    job = subprocess.Popen(
        [*command, '--cfg-options', *options],
        env=ENV,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    try:
        for line in job.stdout:
            said.append(line)
            if 'Iter(train)' in line:
                break
        pids = processes_below(job.pid)
        assert pids.keys() == {'0', '1'}, said
        killed = time.monotonic()
        os.kill(pids['1'], signal.SIGKILL)
        said += job.communicate(timeout=60)[0].splitlines(keepends=True)
        assert time.monotonic() - killed < 30 and job.returncode == 128 + signal.SIGKILL
    finally:
        if job.poll() is None:
            job.terminate()
            job.wait(60)
    wanted = rf'error: process 1 \(pid {pids["1"]}\) was killed by SIGKILL .*; the job was ended; --resume goes on'
    assert re.match(wanted, said[-1]), ''.join(said)
    assert not any(Path(f'/proc/{pid}').exists() for pid in pids.values())
    assert ''.join(said).count('SyncBN needs a GPU') == 1


def test_what_all_processes_find_wrong_is_said_once(config: Path, data: Path, tmp_path: Path) -> None:
    command = ['sh', str(ROOT / 'tools/dist_train.sh'), str(config), '2', '--cfg-options', 'data_root=nowhere']
    job = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, text=True)
    assert job.returncode == 2
    said = (job.stdout + job.stderr).strip()
    assert re.match('error: train_dataloader: there is no folder .*nowhere', said) and len(said.splitlines()) == 1


SRUN = """#!/bin/sh
echo "$MASTER_PORT $*" > {log}
while [ "$1" != python ]; do shift; done
export SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODELIST='node[1-2]'
exec "$@"
"""
SCONTROL = """#!/bin/sh
[ "$*" = 'show hostnames node[1-2]' ] && printf '127.0.0.1\\nnode2\\n'
"""


def test_slurm(config: Path, data: Path, tmp_path: Path) -> None:
    for name, text in (('srun', SRUN.format(log=tmp_path / 'log')), ('scontrol', SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    options = [f'data_root={data}', 'train_cfg.max_iters=1']
    command = ['sh', str(ROOT / 'tools/slurm_train.sh'), 'gpus', 'a-job', str(config), '--work-dir', str(tmp_path)]
    env = {**ENV, 'PATH': f'{tmp_path}:{ENV["PATH"]}', 'GPUS': '16', 'SRUN_ARGS': '--time 9'}
    job = subprocess.run([*command, '--cfg-options', *options], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert job.returncode == 0, job.stdout + job.stderr
    assert 'effective batch 2 = 1 process x 2 images' in job.stdout and (tmp_path / 'iter_1.pth').is_file()
    port, *given = (tmp_path / 'log').read_text().split()
    assert 20000 <= int(port) < 30000
    wanted = '--partition gpus --job-name a-job --gres gpu:8 --ntasks 16 --ntasks-per-node 8 --cpus-per-task 5'
    assert ' '.join(given).startswith(f'{wanted} --kill-on-bad-exit=1 --time 9 python -u ')
    assert ' '.join(given).endswith(
        f'{config} --launcher slurm --work-dir {tmp_path} --cfg-options {" ".join(options)}'
    )


@pytest.mark.parametrize('tool', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_scripts_say_how_they_are_used(tool: str) -> None:
    job = subprocess.run(['sh', str(ROOT / 'tools' / tool), 'x'], capture_output=True, text=True)
    assert job.returncode == 2 and job.stderr.startswith('usage: ')


def test_where_the_machines_meet() -> None:
    assert torchrun_options('4', {'MASTER_PORT': '1'})[0] == '--standalone'  # a free port
    env = {'NNODES': '2', 'NODE_RANK': '1', 'MASTER_ADDR': 'first'}
    wanted = '--nnodes 2 --node_rank 1 --master_addr first --master_port 29500 --nproc_per_node 4'
    assert torchrun_options('4', env) == wanted.split()
    with pytest.raises(UsageError, match='NODE_RANK and MASTER_ADDR is not set'):
        torchrun_options('4', {'NNODES': '2'})
    with pytest.raises(UsageError, match="expected the number of GPUs .*'0'"):
        torchrun_options('0', {})


def test_the_process_that_was_killed_is_the_reason(capsys: pytest.CaptureFixture) -> None:
    failures = {r: ProcessFailure(r, 70 + r, code, 'none') for r, code in ((0, 1), (1, -9))}
    assert explain(failures, resumable=False) == 137
    assert capsys.readouterr().err.startswith('error: process 1 (pid 71) was killed by SIGKILL (as the system does')
    assert explain({0: failures[0]}, resumable=True) == 1
    said = 'error: process 0 (pid 70) failed with status 1, see its traceback above; the job was ended; --resume'
    assert capsys.readouterr().err.startswith(said)
