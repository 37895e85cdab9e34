"""What is left when processes are killed, and that the next start clears it away."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.predicting import command, write_photos
from helpers.processes import ENV, processes_below
from helpers.tiny_training import predictor, write_config

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.utils.files import AtomicFile
from mmseg_volo_cli import main

pytestmark = pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds processes under /proc')
SCRATCH = '**/.*.writing-*'


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 2, 64, 128)


def until(met: Callable[[], object], job: subprocess.Popen | BaseProcess, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not met():
        ended = job.poll() if isinstance(job, subprocess.Popen) else job.exitcode
        assert ended is None and time.monotonic() < end, 'it ended, or did not come so far'
        time.sleep(0.01)


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


@pytest.mark.parametrize('suffix', ['.tif', '.mkv'])
def test_predictions_killed_while_they_write_leave_nothing_in_the_end(suffix: str, tmp_path: Path) -> None:
    checkpoint, out, given = predictor(tmp_path), tmp_path / 'out', tmp_path / f'given{suffix}'
    if suffix == '.tif':
        pytest.importorskip('rasterio')
        from helpers import geotiffs

        geotiffs.write(given, geotiffs.scene(1000, 1500), tiled=True, blockxsize=256, blockysize=256)
    else:
        pytest.importorskip('av')
        from helpers.videos import film

        film(given, (64, 96), Fraction(25), 100)
    arguments = [*command(checkpoint, given, '--out', out), '--outputs', 'masks,colours,areas']
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmseg_volo.cli.commands', 'mmseg_volo.register_all'])
    job = context.Process(target=main, args=(arguments,))
    job.start()
    until(lambda: [*out.glob(f'{SCRATCH}{suffix}')], job)
    (out / 'masks/.mine.pth').touch()
    living = AtomicFile(out / 'masks/other.png')  # of a process that is at it
    job.kill(), job.join()
    assert {*out.glob(SCRATCH)} > {living.scratch}
    assert main(arguments) == 0
    assert {*out.glob(SCRATCH)} == {living.scratch} and (out / 'masks/.mine.pth').is_file()
    living.close()
    assert (out / f'masks/given{suffix}').is_file() and not (out / '.predict').exists()


def test_a_result_that_is_not_whole_is_made_again(tmp_path: Path) -> None:
    checkpoint, out = predictor(tmp_path), tmp_path / 'out'
    arguments = [*command(checkpoint, write_photos(tmp_path / 'photos'), '--out', out)]
    assert main(arguments) == 0
    whole = {path: path.read_bytes() for path in out.glob('*/**/*.*')}
    for name, size in (('masks/a.png', 0), ('overlays/b.jpg', 100)):  # what a power failure leaves
        os.truncate(out / name, size)
    corrected = out / 'masks/deep/a.png'
    cv2.imwrite(str(corrected), np.zeros((80, 96), np.uint8))  # by somebody, in fewer bytes
    assert corrected.stat().st_size < len(whole[corrected])
    whole[corrected] = corrected.read_bytes()
    assert main(arguments) == 0
    assert {path: path.read_bytes() for path in whole} == whole
