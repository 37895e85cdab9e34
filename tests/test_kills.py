"""What is left when processes are killed, and that the next start clears it away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from small import write_config
from test_distributed import ENV
from test_launch import processes_below

from mmseg_volo.datasets import scenes

pytestmark = pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds processes under /proc')
SCRATCH = '**/.*.writing-*'


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 2, 64, 128)


def until(met: Callable[[], object], job: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert job.poll() is None and time.monotonic() < end, 'it ended, or did not come so far'
        time.sleep(0.01)


def start(*arguments: str, log: Path) -> subprocess.Popen:
    with log.open('wb') as file:
        call = [sys.executable, '-m', 'mmseg_volo_cli', *arguments]
        return subprocess.Popen(call, env=ENV, cwd=log.parent, stdout=file, stderr=subprocess.STDOUT)


def below(pid: int) -> set[int]:
    """All processes that a process has started, and they."""
    found = set()
    for task in Path(f'/proc/{pid}/task').glob('*/children'):
        for child in map(int, task.read_text().split()):
            found |= {child, *below(child)}
    return found


def alive(pids: set[int]) -> set[int]:
    stats = {pid: Path(f'/proc/{pid}/stat') for pid in pids}
    return {pid for pid, stat in stats.items() if stat.exists() and stat.read_text().rpartition(')')[2][1] != 'Z'}


def test_processes_end_with_their_launcher(data: Path, tmp_path: Path) -> None:
    options = [f'data_root={data}', 'train_cfg.max_iters=100000', 'train_cfg.val_interval=100000']
    options += ['default_hooks.checkpoint.interval=100000', 'train_dataloader.num_workers=1']
    arguments = [str(write_config(tmp_path)), '2', '--no-amp', '--work-dir', str(tmp_path / 'w'), '--cfg-options']
    with (tmp_path / 'log').open('wb') as log:
        script = ['sh', str(ROOT / 'tools/dist_train.sh'), *arguments, *options]
        job = subprocess.Popen(script, env=ENV, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    processes: set[int] = set()
    try:
        until(lambda: b'Iter(train)' in (tmp_path / 'log').read_bytes(), job)
        assert processes_below(job.pid).keys() == {'0', '1'}
        processes = below(job.pid)
        assert len(processes) >= 4  # with their data workers
        job.kill()
        job.wait()
        killed = time.monotonic()
        while alive(processes) and time.monotonic() - killed < 30:
            time.sleep(0.05)
        assert not alive(processes) and time.monotonic() - killed < 10
    finally:
        for pid in alive(processes):
            os.kill(pid, signal.SIGKILL)
    assert b'error: the launcher was killed, so its processes end' in (tmp_path / 'log').read_bytes()
    assert [*(tmp_path / 'w').glob('iter_*.pth')] and not [*(tmp_path / 'w').glob(SCRATCH)]
