"""Two processes in one work dir: who may, who is told what, and that nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.tiny_training import train, write_config
from mmengine.logging import MessageHub

from mmseg_volo.cli.quickstart import demo
from mmseg_volo.datasets import cache
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine import work_dir
from mmseg_volo.engine.work_dir import emptied_work_dir, in_use_by_test, in_use_by_training, own_session
from mmseg_volo.errors import UsageError
from mmseg_volo.utils.locks import Lock, acquire_shared, describe_holder, other_holders, read_holder
from mmseg_volo_cli import main

# a process that holds a lock, with a data worker that outlives it
HOLDER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from locks import Lock
lock = Lock(sys.argv[2])
assert lock.take()
lock.tell(what='train')
if os.fork() == 0:
    time.sleep(20)
    os._exit(0)
print('held', flush=True)
time.sleep(20)
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 2, 64, 128)


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work dir."""
    folder = tmp_path_factory.mktemp('trained')
    assert train(write_config(folder), data, folder / 'work') == 0
    return folder / 'work'


@pytest.fixture(autouse=True)
def impatient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if 'kill' not in request.node.name:
        monkeypatch.setattr(work_dir, 'LOCK_WAIT', 0)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """What is in a folder, with size and time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob('*')
        if path.is_file()
    }


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='it forks')
def test_a_killed_process_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / 'deep/er/.train.lock'
    command = [sys.executable, '-c', HOLDER, str(ROOT / 'mmseg_volo/utils'), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as holder:
        try:
            assert holder.stdout.readline() == b'held\n'
            lock = Lock(path)
            assert not lock.take() and path.is_file()
            assert read_holder(path)['pid'] == holder.pid and f'process {holder.pid} on ' in describe_holder(
                read_holder(path)
            )
            os.kill(holder.pid, signal.SIGKILL)  # its worker lives on
            holder.wait()
            with in_use_by_training(path.parent):
                pass
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
    assert not path.exists()


def test_a_lock_leaves_nothing(tmp_path: Path) -> None:
    with Lock(tmp_path / 'a/b/.x.lock') as lock:
        assert lock.take()
        (tmp_path / 'a/kept').touch()
    assert [*tmp_path.rglob('*')] == [tmp_path / 'a', tmp_path / 'a/kept']
    again = Lock(tmp_path / '.x.lock')
    assert again.take()
    (tmp_path / '.x.lock').unlink()  # by somebody who cleans up: no two have it then, each has a file of its own
    assert Lock(tmp_path / '.x.lock').take()


def test_places_of_a_kind(tmp_path: Path) -> None:
    one, two = acquire_shared(tmp_path, 'test', number=1), acquire_shared(tmp_path, 'test', number=2)
    assert [said['number'] for said in other_holders(tmp_path, 'test')] == [1, 2]
    assert [said['number'] for said in other_holders(tmp_path, 'test', one)] == [2]
    one.release()
    (tmp_path / '.test-5.lock').write_text('{"number": 5}')  # of a killed process
    assert [said['number'] for said in other_holders(tmp_path, 'test')] == [2]
    assert [path.name for path in tmp_path.iterdir()] == ['.test-1.lock']
    two.release()


def test_no_locks_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip('fcntl')

    def lacking(*given: object) -> None:
        raise OSError(38, 'Function not implemented')

    monkeypatch.setattr(fcntl, 'flock', lacking)
    with in_use_by_training(tmp_path), in_use_by_training(tmp_path):
        pass


def test_a_second_training_is_refused(trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = trained.parent / 'small.py'
    lock = Lock(tmp_path / 'w/.train.lock')
    assert lock.take()
    lock.tell(what='train')
    before = files_of(tmp_path)
    (tmp_path / 'data').mkdir()
    for command in (
        ['train', str(config), '--cfg-options', f'data_root={data}'],
        ['train', str(config), '--resume', '--cfg-options', f'data_root={data}'],
        ['train', '--data', str(tmp_path / 'data'), '--model', 'volo_demo'],  # before it looks at the data
        ['train', '--data', str(tmp_path / 'data'), '--model', 'volo_demo', '--plan-only'],
    ):
        assert main([*command, '--work-dir', str(tmp_path / 'w')]) == 2
        error = capsys.readouterr().err
        assert re.fullmatch(
            rf'error: .*/w is in use by a training, process {os.getpid()} on \S+ since \d{{4}}-.*: wait until it ends, '
            r'stop it, or name another --work-dir\n',
            error,
        )
    assert files_of(tmp_path) == before
    lock.release()


def test_checkpoints_elsewhere_are_locked_too(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lock = Lock(tmp_path / 'weights/w/.train.lock')
    assert lock.take()
    elsewhere = f'default_hooks.checkpoint.out_dir={tmp_path / "weights"}'
    assert train(trained.parent / 'small.py', data, tmp_path / 'w', elsewhere) == 2
    assert 'weights/w is in use by a training, another process:' in capsys.readouterr().err
    assert not (tmp_path / 'w').exists()
    lock.release()


def test_a_finished_training_is_not_replaced(trained: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    before = files_of(trained)
    assert not [name for name in before if 'lock' in name]
    for more in ([], ['randomness.seed=4']):
        assert train(trained.parent / 'small.py', data, trained, *more) == 2
        error = capsys.readouterr().err
        assert 'holds another training (iter_4.pth), which would be replaced: --resume continues it' in error
    assert files_of(trained) == before


def test_a_test_beside_a_training(trained: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    before = files_of(trained)
    with in_use_by_training(trained):  # of another process
        options = ['--work-dir', str(trained), '--cfg-options', f'data_root={data}', 'randomness.seed=5']
        assert main(['test', str(trained.parent / 'small.py'), str(trained / 'iter_4.pth'), *options]) == 0
        assert main(['report', str(trained)]) == 0
    after = files_of(trained)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {'report.html'}  # not the config, in which this test has another seed
    assert not [name for name in after if 'lock' in name]


@pytest.mark.parametrize('option', ['--out', '--show-dir'])
def test_results_among_the_data(
    option: str, trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = files_of(data)
    options = ['--work-dir', str(tmp_path / 'w'), '--cfg-options', f'data_root={data}']
    for folder in ('gtFine/val/made-up', 'leftImg8bit/val/../val/made-up/new'):
        place = next((data / folder.split('/')[0] / 'val').iterdir()).name
        given = str(data / folder).replace('made-up', place)
        arguments = [str(trained.parent / 'small.py'), str(trained / 'iter_4.pth'), option, given]
        assert main(['test', *arguments, *options]) == 2
        assert 'which holds files of the data set: name another one' in capsys.readouterr().err
    assert files_of(data) == before and not (tmp_path / 'w').exists()


def test_a_cache_that_another_process_fills(tmp_path: Path) -> None:
    lock = Lock(tmp_path / cache.FOLDER / '.fill.lock')
    assert lock.take()
    with pytest.raises(UsageError, match='mmseg_volo_cache is being filled by another process: wait until it ends'):
        cache.fill(tmp_path, {}, 0, 1)
    lock.release()
    assert cache.fill(tmp_path, {}, 0, 1) == 0 and not [*tmp_path.iterdir()]


def test_sessions_of_one_second(tmp_path: Path) -> None:
    names = [own_session(tmp_path, '20250131_235958') for _ in range(3)]
    assert names == ['20250131_235958', '20250131_235959', '20250201_000000']
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    MessageHub.get_instance('small_20250131_235958')  # of a session of this process, in another work dir
    assert own_session(tmp_path / 'other', '20250131_235958', 'small') == '20250131_235959'


def test_a_folder_in_use_is_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, 'generate', lambda *given: None)
    out = tmp_path / 'demo'
    (out / 'deep').mkdir(parents=True)
    for name in ('photo.jpg', 'deep/volo_demo.py'):
        (out / name).touch()
    before = files_of(out)
    with pytest.raises(UsageError, match=r'demo would be emptied, but holds no volo_demo.py: name another folder'):
        demo(out, tmp_path)
    (out / 'volo_demo.py').touch()
    with in_use_by_test(out), pytest.raises(UsageError, match=r'demo is in use by a test, process \d+ on'):
        demo(out, tmp_path)
    lock = Lock(out / '.train.lock')
    assert lock.take()
    with pytest.raises(UsageError, match='demo is in use by a training'):
        demo(out, tmp_path)
    lock.release()
    assert before.items() <= files_of(out).items()
    with emptied_work_dir(out, 'volo_demo.py'):
        assert [path.name for path in out.iterdir()] == ['.train.lock']
        (out / '20250131_235958').mkdir()  # a demo that is stopped at once
    with emptied_work_dir(out, 'volo_demo.py'):
        pass
    assert not [*out.iterdir()]


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='it has signals')
def test_resume_after_a_kill_works_at_once(trained: Path, data: Path, tmp_path: Path) -> None:
    work, config = tmp_path / 'w', trained.parent / 'small.py'
    longer = ['train_cfg.max_iters=100000', 'train_dataloader.num_workers=1', 'default_hooks.checkpoint.interval=2']
    options = ['--work-dir', str(work), '--cfg-options', f'data_root={data}', *longer]
    command = [sys.executable, '-m', 'mmseg_volo_cli', 'train', str(config), '--no-amp', *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while not [*work.glob('iter_*.pth')]:
            assert running.poll() is None
            time.sleep(0.1)
        said = json.loads((work / '.train.lock').read_text())
        assert said['pid'] == running.pid
        assert train(config, data, work, '--resume') == 2
        running.kill()
    assert train(config, data, work, '--resume', f'train_cfg.max_iters={iteration(work) + 1}') == 0
    assert not (work / '.train.lock').exists()


def iteration(work: Path) -> int:
    return max(int(path.stem.split('_')[1]) for path in work.glob('iter_*.pth'))
