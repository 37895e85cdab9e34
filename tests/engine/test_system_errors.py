"""What the system refuses, in a sentence."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from helpers.predicting import command, write_photos
from helpers.processes import ENV
from helpers.tiny_training import predictor, train, write_config

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine import system_errors as troubles
from mmseg_volo.engine.hooks import stop
from mmseg_volo.engine.system_errors import naming_system_errors
from mmseg_volo.errors import UsageError
from mmseg_volo.inference import files as run
from mmseg_volo.utils.files import AtomicFile, remove_scratch_files, scratch_path
from mmseg_volo_cli import main

Usage = namedtuple('Usage', 'free')


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 2, 64, 128)


@pytest.mark.parametrize(
    ('error', 'wanted'),
    [
        (OSError(errno.ENOSPC, 'full'), r'a file of w cannot be read or written \(full\): free some space'),
        (OSError(errno.EMFILE, 'many'), 'many: raise the limit with ulimit -n'),
        (OSError(errno.EEXIST, 'exists', 'place'), r'place .*\(exists\): there is a file in place of a folder'),
        (OSError(errno.EACCES, 'denied', 'place'), r'place cannot be read or written \(denied\): check that'),
        (
            RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. '),
            r'worker 7 was killed \(Kil',
        ),
        (ConnectionResetError(errno.ECONNRESET, 'reset'), 'data worker was killed, as happens'),
        (FileNotFoundError(errno.ENOENT, 'none'), 'data worker was killed, as happens'),
        (RuntimeError('DataLoader worker (pid(s) 7, 8) exited unexpectedly'), 'worker 7, 8 was killed, as happens'),
        (
            RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error. shared memory'),
            'shm is full',
        ),
    ],
)
def test_in_a_sentence(error: Exception, wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted), naming_system_errors('w'):
        raise error


def test_shared_memory_is_told_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(troubles.shutil, 'disk_usage', lambda path: Usage(0 if path == troubles.SHARED else 1 << 40))
    with pytest.raises(UsageError, match='/dev/shm, through which data workers .* is full: enlarge it'):
        with naming_system_errors(tmp_path):
            raise OSError(errno.ENOSPC, 'full')


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds the workers under /proc')
def test_a_killed_data_worker(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    after = stop.GracefulStopHook.after_train_iter

    def kill(hook: stop.GracefulStopHook, runner: object, *given: object, **more: object) -> None:
        after(hook, runner, *given, **more)
        if runner.iter == 1:
            for worker in Path('/proc/self/task').glob('*/children'):
                for pid in map(int, worker.read_text().split()):
                    if b'resource_tracker' not in Path(f'/proc/{pid}/cmdline').read_bytes():
                        os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(stop.GracefulStopHook, 'after_train_iter', kill)
    options = ['train_dataloader.num_workers=1', 'train_cfg.max_iters=1000', 'default_hooks.checkpoint.interval=1']
    assert train(write_config(tmp_path), data, tmp_path / 'w', *options) == 2
    assert 'was killed' in capsys.readouterr().err.splitlines()[-1]
    assert [*(tmp_path / 'w').glob('iter_*.pth')]


def test_nobody_reads_the_output(tmp_path: Path) -> None:
    call = [*command(predictor(tmp_path), write_photos(tmp_path / 'photos'), '--out', tmp_path / 'out')]
    reader, writer = os.pipe()
    os.close(reader)
    job = subprocess.run(
        [sys.executable, '-m', 'mmseg_volo_cli', *call], env=ENV, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert job.returncode == 141 and 'rror' not in job.stderr, job.stderr
    assert not [*(tmp_path / 'out').rglob('.*')]


@pytest.mark.skipif(not hasattr(signal, 'SIGHUP'), reason='no SIGHUP here')
def test_a_prediction_is_asked_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write = run.write_image

    def asked(out: Path, stem: Path, *given: object) -> tuple:
        if stem.name == 'b':
            os.kill(os.getpid(), signal.SIGHUP)
        return write(out, stem, *given)

    monkeypatch.setattr(run, 'write_image', asked)
    arguments = command(predictor(tmp_path), write_photos(tmp_path / 'photos'), '--out', tmp_path / 'out')
    with pytest.raises(SystemExit, match='129'):
        main(arguments)
    assert 'error: stopped; finished results are kept' in capsys.readouterr().err
    assert not [*(tmp_path / 'out').rglob('.*')] and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_scratch_files(tmp_path: Path) -> None:
    long = tmp_path / f'{"ü" * 125}.png'  # 254 bytes
    for path in (long, tmp_path / 'a.tar.gz', tmp_path / 'bare', tmp_path / '.hidden'):
        with AtomicFile(path) as temporary:
            temporary.write_bytes(b'x')
        assert path.read_bytes() == b'x'
    assert scratch_path(long).suffix == '.png' and not [*tmp_path.glob('.*.writing-*')]
    with pytest.raises(KeyError), AtomicFile(tmp_path / 'b.pth') as temporary:
        raise KeyError
    forsaken = [scratch_path(tmp_path / name) for name in ('iter_1.pth', 'last_checkpoint', 'x.png')]
    own = [tmp_path / name for name in ('.backup.pth', '.iter_2.deadbeef.pth', '.a.writing-x.pth')]
    for path in (*forsaken, *own):
        path.touch()
    living = AtomicFile(tmp_path / 'iter_3.pth')
    remove_scratch_files(tmp_path, '*.pth'), remove_scratch_files(tmp_path, 'last_checkpoint')
    assert [path.exists() for path in (*forsaken, *own, living.scratch)] == [False, False, *[True] * 5]
    living.close()
    assert not living.scratch.exists()
