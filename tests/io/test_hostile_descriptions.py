"""Checkpoints whose description loads and does not work, and files that say to be larger than they are: a sentence."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_training

import mmseg_volo
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import RECORD, read_checkpoint
from mmseg_volo_cli import main

LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackSegInputs')
PIPELINES = {
    'nothing is loaded': ([PACK], 'first step'),
    'loaded twice': ([LOAD, LOAD, PACK], 'first step'),
    'packed first': ([PACK, LOAD], 'first step'),
    'never packed': ([LOAD], 'last step'),
    'packed twice': ([LOAD, PACK, PACK], 'last step'),
    'no size': ([LOAD, dict(PACK, meta_keys=['img_path'])], 'leaves out img_shape, ori_shape'),
}


@pytest.fixture(scope='module')
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return read_checkpoint(tiny_training.predictor(tmp_path_factory.mktemp('model')))


def saved(folder: Path, content: dict[str, Any], **changes: Any) -> Path:
    """A checkpoint with another record."""
    record = {**content['meta'][RECORD], **changes}
    torch.save({**content, 'meta': {**content['meta'], RECORD: record}}, folder / 'odd.pth')
    return folder / 'odd.pth'


@pytest.mark.parametrize('what', PIPELINES)
def test_a_pipeline_that_cannot_work_is_not_taken(what: str, tmp_path: Path, content: dict[str, Any]) -> None:
    steps, said = PIPELINES[what]
    with pytest.raises(UsageError, match=f'odd.pth has a test pipeline that cannot work, .*{said}.*: give the config'):
        mmseg_volo.load(saved(tmp_path, content, test_pipeline=steps))


def test_what_fails_at_an_image_names_the_description(tmp_path: Path, content: dict[str, Any]) -> None:
    model = content['meta'][RECORD]['model']
    four = dict(type='Normalize', mean=[0] * 4, std=[1] * 4)
    for changes in (
        dict(test_pipeline=[LOAD, four, PACK]),
        dict(model={**model, 'data_preprocessor': None}),
        dict(model={**model, 'decode_head': {**model['decode_head'], 'in_index': [0, 1, 2, 9]}}),
    ):
        loaded = mmseg_volo.load(saved(tmp_path, content, **changes), device='cpu')
        with pytest.raises(UsageError, match='odd.pth describes do not work on this image .*: give the config'):
            mmseg_volo.predict(loaded, np.zeros((40, 48, 3), np.uint8))


def test_a_part_that_fails_without_a_word_is_named(tmp_path: Path, content: dict[str, Any]) -> None:
    steps = [LOAD, dict(type='AdjustGamma', gamma=0), PACK]
    with pytest.raises(UsageError, match='cannot be built: AssertionError'):
        mmseg_volo.load(saved(tmp_path, content, test_pipeline=steps))


def test_weights_of_few_numbers_repeated_are_not_taken(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for tensor, said in (
        (torch.zeros(1).expand(10**6, 10**6), '4000000 MB of few values, repeated'),
        (torch.zeros(3, dtype=torch.bits8), 'of bits8'),
    ):
        torch.save({'w': tensor, 'v': torch.zeros(3)}, 'odd.pth')
        for command in (['check', 'odd.pth'], ['convert', 'odd.pth', 'a.safetensors']):
            assert main(['weights', *command]) == 2
            assert f'odd.pth: w is {said}, but models load' in capsys.readouterr().err


def test_a_list_that_stands_a_million_times_in_another_one_is_refused(tmp_path: Path) -> None:
    torch.save({'x': 1}, tmp_path / 'plain.pth')
    pickled = (
        b'\x80\2}(X\1\0\0\0x' + b'](]q\0(' + b'K\1' * 10**5 + b'e](' + b'h\0' * 10**5 + b'ee' + b'u.'
    )  # 10 billion in 400 kB
    with zipfile.ZipFile(tmp_path / 'plain.pth') as plain, zipfile.ZipFile(tmp_path / 'laughs.pth', 'w') as laughs:
        for name in plain.namelist():
            laughs.writestr(name, pickled if name.endswith('data.pkl') else plain.read(name))
    with pytest.raises(UsageError, match='over 10000000 values'):
        read_checkpoint(tmp_path / 'laughs.pth')
