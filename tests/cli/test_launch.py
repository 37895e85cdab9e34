"""Jobs of several processes: how they start, and what is said when they end before their time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.processes import CONFIG, ENV, processes_below
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mmseg_volo.config import CONFIGS
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.errors import UsageError
from mmseg_volo.launch import explain, torchrun_options


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 1, 64, 128)


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('config') / 'normed.py'
    path.write_text(CONFIG.format(configs=CONFIGS, norm="dict(type='SyncBN')"))
    return path


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds the processes under /proc')
def test_a_killed_process_ends_the_job_in_one_clear_line(config: Path, data: Path, tmp_path: Path) -> None:
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


def test_what_all_processes_find_wrong_is_said_once(config: Path, tmp_path: Path) -> None:
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
