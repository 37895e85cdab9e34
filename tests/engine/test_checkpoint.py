"""Checkpoints survive kills, full disks and flipped bits."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

import pytest
import torch
from helpers.paths import TESTS
from helpers.resuming import differing, train, write_config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.checkpoint import newest_checkpoint, write_checkpoint
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import find_damage, read_checkpoint
from mmseg_volo_cli import main

KILLS = 20


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 1, 64, 128)


def keep_one(config: Path, interval: int = 1) -> Path:
    """A config that saves often and keeps one checkpoint."""
    text = config.read_text().replace('interval=3, max_keep_ckpts=-1', f'interval={interval}, max_keep_ckpts=1')
    config.write_text(text)
    return config


@pytest.fixture(scope='module')
def processes() -> multiprocessing.context.ForkServerContext:
    """Processes from one that has imported everything, and in which torch's threads have not been started."""
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ['PYTHONPATH'] = os.pathsep.join(
        [*map(str, (TESTS, Path(__file__).parent)), os.environ.get('PYTHONPATH', '')]
    )
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['test_checkpoint'])
    return context


def tool(arguments: list[str], output: Connection) -> None:
    """Runs the tool with its output into a pipe, which no full disk can stop."""
    os.dup2(output.fileno(), 1), os.dup2(output.fileno(), 2)
    raise SystemExit(main(arguments))


def start(processes: multiprocessing.context.ForkServerContext, arguments: list[str]) -> tuple[Process, list[str]]:
    """(a process of the tool, a list that grows by what it prints)."""
    reader, writer = processes.Pipe(duplex=False)
    process = processes.Process(target=tool, args=(arguments, writer))
    process.start()
    writer.close()
    said: list[str] = []

    def listen() -> None:
        with open(reader.fileno(), errors='replace', closefd=False) as pipe:
            said.extend(pipe)
        reader.close()

    threading.Thread(target=listen, daemon=True).start()
    return process, said


def test_a_training_killed_at_random_moments_always_goes_on(data: Path, tmp_path: Path, processes) -> None:
    config, work = keep_one(write_config(tmp_path, iterations=100_000)), tmp_path / 'work'
    arguments = ['train', str(config), '--work-dir', str(work), '--resume', '--cfg-options', f'data_root={data}']
    dice, reached = random.Random(0), 0
    for _ in range(KILLS):
        process, said = start(processes, arguments)
        patience = time.monotonic() + 120
        while _iteration(work) == reached:  # until the first save of this process
            assert process.is_alive() and time.monotonic() < patience, said
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 0.3))  # some iterations, and a save after each
        process.kill()
        process.join()
        path, _ = newest_checkpoint(work)
        reached, before = read_checkpoint(path)['meta']['iter'], reached
        assert reached > before, said
    assert len([*work.glob('iter_*.pth')]) <= 2  # the last one, and the one it was to replace
    process, said = start(processes, [*arguments, f'train_cfg.max_iters={reached + 2}'])
    process.join()
    assert process.exitcode == 0, said
    assert [p.name for p in work.glob('iter_*.pth')] == [f'iter_{reached + 2}.pth']
    assert not [*work.glob('.*')]  # scratch files are swept up


def _iteration(work: Path) -> int:
    return max((int(path.stem.split('_')[1]) for path in work.glob('iter_*.pth')), default=0)


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('trained')
    assert train(write_config(folder, iterations=2), data, folder / 'work') == 0
    return folder / 'work/iter_2.pth'


def test_a_flipped_byte_is_found_or_does_not_matter(trained: Path, tmp_path: Path) -> None:
    content, dice, found = trained.read_bytes(), random.Random(1), 0
    whole, path = read_checkpoint(trained), tmp_path / 'flipped.pth'
    for _ in range(300):
        place = dice.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :])
        try:
            assert not differing(read_checkpoint(path), whole), place
        except UsageError as error:
            assert str(path) in str(error)
            found += 1
    assert found > 150  # the others hit names and padding, which nothing is read from


def test_a_truncated_file_is_found(trained: Path, tmp_path: Path) -> None:
    content, path = trained.read_bytes(), tmp_path / 'iter_3.pth'
    for length in (0, 3, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert find_damage(path)
        with pytest.raises(UsageError, match='iter_3.pth'):
            read_checkpoint(path)


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    """With three checkpoints, iter_1 to iter_3."""
    content = read_checkpoint(trained)
    for iteration in (1, 2, 3):
        content['meta']['iter'] = iteration
        torch.save(content, tmp_path / f'iter_{iteration}.pth')
    (tmp_path / 'last_checkpoint').write_text('iter_3.pth')
    return tmp_path


def test_the_newest_whole_checkpoint_is_found(work: Path) -> None:
    assert newest_checkpoint(work) == (work / 'iter_3.pth', [])
    for garbage in (b'', b'\x00\xff' * 3000, b'https://example.org/iter_9.pth', b'/nowhere/iter_9.pth', b'x' * 9000):
        (work / 'last_checkpoint').write_bytes(garbage)
        assert newest_checkpoint(work) == (work / 'iter_3.pth', [])
    (work / 'last_checkpoint').unlink()
    with open(work / 'iter_3.pth', 'r+b') as file:
        file.truncate(5000)
    path, wrong = newest_checkpoint(work)
    assert path == work / 'iter_2.pth' and len(wrong) == 1 and wrong[0].startswith('iter_3.pth is skipped: trunc')
    for other in (1, 2):
        (work / f'iter_{other}.pth').write_bytes(b'')
    with pytest.raises(UsageError, match='no checkpoint in .* is intact .*iter_3.pth.*iter_1.pth.*remove them'):
        newest_checkpoint(work)
    assert newest_checkpoint(work / 'nothing') == (None, [])


def test_resume_says_what_it_takes_and_why(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = tmp_path / 'moved'  # the pointer of mmengine would hold the old place
    shutil.copytree(trained.parent, moved)
    (moved / 'iter_3.pth').write_bytes(b'PK')
    assert train(write_config(tmp_path, iterations=4), data, moved, '--resume') == 0
    said = capsys.readouterr().out
    assert 'iter_3.pth is skipped: ' in said and f'loaded {moved}/iter_2.pth' in said and '[3/4]' in said
    assert find_damage(moved / 'iter_4.pth') is None
    anew = tmp_path / 'anew'
    assert train(write_config(tmp_path, iterations=1), data, anew, '--resume') == 0
    assert f'{anew} has no checkpoint, so the training starts anew' in capsys.readouterr().out


@HOOKS.register_module()
class FullDiskHook(Hook):
    """From an iteration on no file grows beyond some bytes, as on a full disk."""

    def __init__(self, iteration: int, size: int):
        self.iteration, self.size = iteration, size

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        if runner.iter + 1 == self.iteration:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


def on_full_disk(config: Path, iteration: int, size: int) -> None:
    hook = f'dict(type="FullDiskHook", iteration={iteration}, size={size})'
    config.write_text(f'{config.read_text()}custom_hooks.append({hook})\n')


def test_a_full_disk_takes_nothing_away(data: Path, tmp_path: Path, processes) -> None:
    config, work = keep_one(write_config(tmp_path, iterations=5), 2), tmp_path / 'work'
    plain = config.read_text()
    arguments = ['train', str(config), '--work-dir', str(work), '--resume', '--cfg-options', f'data_root={data}']
    on_full_disk(config, 3, 60_000)
    process, said = start(processes, arguments)
    process.join()
    assert process.exitcode == 2
    assert said[-1].startswith('error: the checkpoint ') and '.pth cannot be written' in said[-1], said
    assert '--resume' in said[-1] and 'Traceback' not in ''.join(said)
    assert [p.name for p in work.glob('*iter_*.pth')] == ['iter_2.pth'] and find_damage(work / 'iter_2.pth') is None
    config.write_text(plain)
    process, said = start(processes, arguments)
    process.join()
    assert process.exitcode == 0, said
    assert newest_checkpoint(work)[0] == work / 'iter_5.pth'


def test_a_log_that_cannot_be_written_ends_no_training(data: Path, tmp_path: Path, processes) -> None:
    config = write_config(tmp_path, iterations=3)
    config.write_text(f'{config.read_text()}default_hooks.update(checkpoint=None)\n')
    on_full_disk(config, 1, 1)
    process, said = start(
        processes, ['train', str(config), '--work-dir', str(tmp_path / 'work'), '--cfg-options', f'data_root={data}']
    )
    process.join()
    text = ''.join(said)
    assert process.exitcode == 0, text
    assert '[3/3]' in text and text.count('have gaps: File too large') == 1
    assert 'Logging error' not in text and 'Traceback' not in text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path, limits = tmp_path / 'iter_1.pth', resource.getrlimit(resource.RLIMIT_FSIZE)
    write_checkpoint(dict(state_dict=dict(a=torch.zeros(1000))), path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UsageError, match='iter_1.pth cannot be written .*: free some space'):
            write_checkpoint(dict(state_dict=dict(a=torch.zeros(100_000))), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ['iter_1.pth'] and find_damage(path) is None
