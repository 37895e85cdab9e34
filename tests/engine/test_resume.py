"""A resumed training is the uninterrupted one, bit for bit; a stopped one is saved."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from helpers.resuming import differing, train, write_config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmseg_volo.datasets.sampler import ResumableInfiniteSampler, SeededDataset
from mmseg_volo.datasets.synthetic import scenes


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 5, 1, 64, 128)


def assert_same(one: Path, other: Path) -> None:
    a, b = (torch.load(path, weights_only=True) for path in (one, other))
    assert not differing(a, b)
    assert {'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'message_hub'} <= a.keys()


@pytest.mark.parametrize(('seed', 'workers'), [(3, 0), (None, 2)])
def test_two_halves_are_the_whole(seed: int | None, workers: int, data: Path, tmp_path: Path) -> None:
    config, whole, halves = write_config(tmp_path, seed, workers), tmp_path / 'whole', tmp_path / 'halves'
    assert train(config, data, whole) == 0
    halves.mkdir()
    for path in whole.glob('*iter_3.pth'):  # and the best one
        shutil.copy(path, halves)
    np.random.seed(9), torch.manual_seed(9)  # whatever was drawn in between
    assert train(config, data, halves, '--resume') == 0
    assert_same(whole / 'iter_6.pth', halves / 'iter_6.pth')
    first, last = (torch.load(whole / f'iter_{i}.pth', weights_only=True)['state_dict'] for i in (3, 6))
    assert differing(first, last)
    assert [p.name for p in halves.glob('best_*')] == [p.name for p in whole.glob('best_*')]


def test_early_stopping_outlasts_a_resume(data: Path, tmp_path: Path) -> None:
    """The score at iteration 1 is never beaten by that much: whole or in halves, three more end the training."""
    hook = 'dict(type="ResumableEarlyStoppingHook", monitor="mIoU", min_delta=100, patience=3)'
    for name, parts in (('whole', [9]), ('halves', [2, 9])):
        for i, iterations in enumerate(parts):
            config = write_config(tmp_path, iterations=iterations, validation=1)
            text = config.read_text().replace('dict(interval=3', 'dict(interval=1')
            text = text.replace(", save_best='mIoU'", '')  # or a best one would be written with its validation
            config.write_text(f'{text}custom_hooks.append({hook})\n')
            assert train(config, data, tmp_path / name, *['--resume'] * i) == 0
        assert (tmp_path / name / 'last_checkpoint').read_text() == 'iter_4.pth'


@HOOKS.register_module()
class SignalHook(Hook):
    """Sends the process a signal after an iteration, or in the first validation."""

    priority = 'VERY_HIGH'

    def __init__(self, number: int, iteration: int, validating: bool = False):
        self.number, self.iteration, self.validating = number, iteration, validating

    def after_train_iter(self, runner: Any, *args, **kwargs) -> None:
        if runner.iter + 1 == self.iteration and not self.validating:
            signal.raise_signal(self.number)

    def after_val_iter(self, runner: Any, *args, **kwargs) -> None:
        if self.validating and runner.iter == self.iteration:
            signal.raise_signal(self.number)


@pytest.mark.parametrize(
    ('number', 'iteration', 'validating', 'more'),
    [
        (signal.SIGTERM, 2, False, ()),
        (signal.SIGTERM, 4, True, ()),  # where no checkpoint is due, and averaged weights are validated
        (signal.SIGINT, 3, True, ()),
        (signal.SIGINT, 3, False, ('--accumulate', '2')),  # between the halves of an update
    ],
)
def test_a_signal_saves_and_resume_goes_on_exactly(
    number: int, iteration: int, validating: bool, more: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, validation=iteration if validating else 3)
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    assert train(config, data, whole, *more) == 0
    before = signal.getsignal(number)
    plain = config.read_text()
    config.write_text(
        f'{plain}custom_hooks.append(dict(type="SignalHook", number={int(number)}, iteration={iteration}, '
        f'validating={validating}))\n'
    )
    with pytest.raises(SystemExit) as status:
        train(config, data, stopped, *more)
    assert status.value.code == 128 + number and signal.getsignal(number) is before
    assert (stopped / 'last_checkpoint').read_text() == f'iter_{iteration}.pth'
    config.write_text(plain)
    assert train(config, data, stopped, '--resume', *more) == 0
    last = f'iter_{12 if more else 6}.pth'
    assert_same(whole / last, stopped / last)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_is_one_line(number: int, data: Path, tmp_path: Path) -> None:
    """As Ctrl-C in a terminal, or the end of a batch job."""
    config, work = write_config(tmp_path, workers=2, iterations=3000), tmp_path / 'work'
    command = [sys.executable, '-u', str(ROOT / 'tools/train.py'), str(config), '--work-dir', str(work)]
    process = subprocess.Popen(
        [*command, '--cfg-options', f'data_root={data}'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if ' 5/3000]' in line:
            os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 128 + number
    assert f'{signal.Signals(number).name}: stopped; --resume continues from' in lines[
        -1
    ] and 'Traceback' not in ''.join(lines)
    assert (work / (work / 'last_checkpoint').read_text()).is_file()


def test_draws_are_dealt_to_processes_and_can_begin_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(sampler: ResumableInfiniteSampler, count: int) -> list[tuple[int, int]]:
        return [(int(draw), draw.position) for draw, _ in zip(sampler, range(count), strict=False)]

    whole = take(ResumableInfiniteSampler(range(5), seed=1), 15)
    assert [place for _, place in whole] == [*range(15)]
    passes = [[index for index, _ in whole[i : i + 5]] for i in (0, 5, 10)]
    assert all(sorted(p) == [*range(5)] for p in passes) and len({tuple(p) for p in passes}) > 1
    assert take(ResumableInfiniteSampler(range(5), seed=1, start=7), 8) == whole[7:]
    for rank in (0, 1):
        monkeypatch.setattr('mmseg_volo.datasets.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        assert take(ResumableInfiniteSampler(range(5), seed=1, start=4), 5) == whole[4 + rank : 14 : 2]


def test_a_draw_decides_all_that_is_random() -> None:
    class Noise:
        metainfo = dict(classes=('a',))

        def __getitem__(self, index: int) -> tuple:
            return index, np.random.rand(), torch.rand(1).item(), __import__('random').random()

        def __len__(self) -> int:
            return 3

    dataset = SeededDataset(Noise(), seed=5)
    draws = [draw for draw, _ in zip(ResumableInfiniteSampler(dataset, seed=5), range(9), strict=False)]
    first = [dataset[draw] for draw in draws]
    assert [dataset[draw] for draw in reversed(draws)] == first[::-1]
    assert len({sample[1:] for sample in first}) == 9
    assert dataset.metainfo == Noise.metainfo and len(dataset) == 3
    other = SeededDataset(Noise(), seed=6)
    assert not {sample[1:] for sample in first} & {other[draw][1:] for draw in draws}
