"""Files that go bad while a training runs: named in one line, or skipped up to a share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.labels import cut, files, values, write_value
from helpers.paths import ROOT
from helpers.tiny_training import train, write_config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmseg_volo.config import load_config
from mmseg_volo.datasets.sampler import SampleIndex, SeededDataset
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.datasets.wrappers import SKIPPED, NamedDataset
from mmseg_volo.errors import UsageError, message_of
from mmseg_volo_cli import main

MMSEG = """
train_dataloader = dict(batch_size=2, num_workers={workers}, persistent_workers=False, dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='RandomCrop', crop_size=(64, 64)),
    dict(type='PackSegInputs'),
]))
val_dataloader = dict(num_workers={workers}, persistent_workers=False)
"""


@pytest.fixture(scope='module')
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 6, 1, 64, 128)


@pytest.fixture
def data(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(original, tmp_path / 'data'))


def damage_all(data: Path, kind: int, split: str) -> None:
    for pair in files(data, split):
        cut(pair[kind])


# mmseg: 'image file is truncated', 'failed to load image', or the picture as far as it goes; from a page of traceback
@pytest.mark.parametrize(
    ('workers', 'kind', 'split'), [(0, 0, 'train'), (0, 1, 'train'), (2, 1, 'train'), (2, 1, 'val')]
)
def test_a_file_that_went_bad_is_an_error_without_its_name(
    workers: int, kind: int, split: str, data: Path, capsys: pytest.CaptureFixture
) -> None:
    damage_all(data, kind, split)
    config = write_config(Path(), MMSEG.format(workers=workers))
    assert train(config, data, Path('work'), '--no-check', 'train_cfg.max_iters=1') == 2
    error = capsys.readouterr().err.strip()
    said = error.splitlines()[-1]
    folder = ('leftImg8bit', 'gtFine')[kind]
    assert re.match(rf'error: /\S+/{folder}/{split}/\S+\.png \(\d+ bytes\) is not a readable picture .*repair', said)
    assert 'Traceback' not in error


def test_a_label_value_that_is_no_class_is_an_index_error(data: Path, capsys: pytest.CaptureFixture) -> None:
    for _, label in files(data):
        mask = values(label)
        mask[:] = 37
        Image.fromarray(mask).save(label)
    assert train(write_config(Path()), data, Path('work'), '--no-check') == 2
    assert re.search(r'error: /\S+TrainIds.png holds 37, expected 0 to 18 and 255', capsys.readouterr().err)


def test_an_evaluated_label_value_that_is_no_class_is_a_wrong_score(data: Path, capsys: pytest.CaptureFixture) -> None:
    config = write_config(Path())
    assert train(config, data, Path('work'), 'train_cfg.max_iters=1', 'train_cfg.val_interval=9') == 0
    label = files(data, 'val')[0][1]
    write_value(label, 37)
    capsys.readouterr()
    assert main(['test', str(config), 'work/iter_1.pth', '--cfg-options', f'data_root={data}']) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(rf'error: /\S+/{label.name}: it holds \[37\], expected labels of 0 to 9', error)


def test_what_is_no_file_s_fault_is_raised_as_it_is() -> None:
    class Broken(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> None:
            raise KeyError('mine')

        def __len__(self) -> int:
            return 1

    with pytest.raises(KeyError, match='mine'):
        NamedDataset(Broken())[0]


def test_torchs_page_of_a_data_worker_becomes_its_last_line() -> None:
    class Bad(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> None:
            raise UsageError('a.png: is bad')

        def __len__(self) -> int:
            return 1

    with pytest.raises(UsageError) as caught:
        next(iter(torch.utils.data.DataLoader(Bad(), num_workers=1)))
    assert 'Traceback' in str(caught.value) and message_of(caught.value) == 'a.png: is bad'
    assert message_of(UsageError('Caught in the act')) == 'Caught in the act'


def test_skipping_says_each_item_once_and_ends_beyond_the_share(data: Path, capsys: pytest.CaptureFixture) -> None:
    (image, label), (_, other), *_ = files(data)
    cut(label)
    skip = ['--no-check', 'train_cfg.on_bad_item=skip', 'train_cfg.max_iters=8', 'train_cfg.val_interval=99']
    config = write_config(Path())
    assert train(config, data, Path('work'), *skip) == 0
    said = ''.join(capsys.readouterr())
    assert len(re.findall(rf'skipped, 1 of at most 1: /\S+{label.name}', said)) == 1
    cut(other)  # and the training that goes on remembers the first
    assert train(config, data, Path('work'), '--resume', *skip, 'train_cfg.max_iters=20') == 2
    said = capsys.readouterr()
    assert '2 items had to be skipped, more than 1 (max_bad_share=0.01)' in said.err
    assert f'{label.name}' not in ''.join(said) and other.name in said.err
    assert train(config, data, Path('again'), *skip, 'train_cfg.max_bad_share=0.4') == 0
    assert train(config, data, Path('never'), *skip, 'train_cfg.on_bad_item=ignore') == 2
    assert "on_bad_item must be 'stop' or 'skip'" in capsys.readouterr().err


def test_what_stands_in_for_a_bad_item_depends_on_its_draw_alone(data: Path) -> None:
    cut(files(data)[2][0])
    config = load_config('volo_demo', {'data_root': str(data)}).train_dataloader.dataset
    with DefaultScope.overwrite_default_scope('mmseg'):
        one, other = (SeededDataset(DATASETS.build(config), 7, skip=True) for _ in range(2))
    places = [SampleIndex(2, place) for place in range(8)]
    first = [one[draw] for draw in places]
    for draw, item in reversed([*zip(places, first, strict=True)]):
        np.random.seed(draw.position)
        again = other[draw]
        assert torch.equal(item['inputs'], again['inputs']) and item[SKIPPED] == again[SKIPPED]
        assert files(data)[2][0].name in item[SKIPPED]
    assert len({item['data_samples'].img_path for item in first}) > 1
    assert one[SampleIndex(0, 3)][SKIPPED] == ''


def test_two_processes_count_together_and_end_together(data: Path) -> None:
    for _, label in files(data)[:4]:
        cut(label)
    options = [
        f'data_root={data}',
        'train_cfg.on_bad_item=skip',
        'train_cfg.max_bad_share=0.4',
        'train_cfg.max_iters=9',
    ]
    command = [sys.executable, '-m', 'mmseg_volo.launch', '2', 'train', str(write_config(Path())), '--no-check']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''}
    command += ['--work-dir', 'work', '--cfg-options', *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2, done.stderr
    assert re.search(r'error: \d items had to be skipped, more than 2', done.stderr)
    assert 'Traceback' not in done.stderr
