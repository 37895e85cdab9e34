"""Weights that see other pixels than they were trained on: at every door, by what their file says of itself first."""

# ruff: noqa: F811, `small` is a fixture

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_coatnet import HALF, KNOWN, built
from mmengine.config import Config
from mmseg.apis import init_model

import mmseg_volo
from mmseg_volo.engine.runner import SegRunner
from mmseg_volo.io.checkpoint import RECORD
from mmseg_volo.io.weights import read_source
from mmseg_volo.models.normalisation import Normalisation, expected_normalisation, mismatches
from mmseg_volo_cli import main

BANDS = [dict(type='LoadMultiBandImage', mean=[500.0] * 3, std=[90.0] * 3)]
COLOURS = [dict(type='LoadImageFromFile')]


def ours(cfg: Config, steps: list[dict], path: Path, **before: Any) -> Path:
    """A whole checkpoint whose training loaded images by these steps."""
    record = Config(dict(model=cfg.model, test_pipeline=steps)).to_dict()
    record['model']['data_preprocessor'].update(before)
    torch.save(dict(state_dict=built(cfg).state_dict(), meta={RECORD: record}), path)
    return path


@pytest.mark.parametrize('theirs, mine', [(COLOURS, BANDS), (BANDS, COLOURS)])
def test_colours_are_no_other_channels(
    theirs: list[dict], mine: list[dict], small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `load`, in the runner, and as a start, unless published ImageNet weights start on other channels."""
    path = ours(small, theirs, tmp_path / 'ours.pth')
    small.test_pipeline = mine
    small.test_dataloader = dict(dataset=dict(type='ADE20KDataset'))
    said = 'ours.pth was trained on channels as in its files of mean 500.* gives it RGB of mean 123'
    if mine is BANDS:
        said = 'ours.pth was trained on RGB of mean 123.* gives it channels as in its files of mean 500'
    with pytest.warns(UserWarning, match=said):
        mmseg_volo.load(small, path, device='cpu')
    small.pop('test_dataloader')
    runner, heard = SegRunner.from_cfg(small), []
    monkeypatch.setattr(runner.logger, 'warning', heard.append)
    runner.load_checkpoint(str(path))
    assert re.search(said, *heard)
    small.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    (sentence,) = mismatches(built(small), mine)
    assert re.search(f'{said}.*load images as its training did', sentence)


def test_published_weights_start_on_other_channels(small: Config, tmp_path: Path) -> None:
    """Also once they are converted; as do weights of such channels, which are normalised by the data's statistics."""
    for name in (KNOWN, 'mine.safetensors', 'bands.pth'):
        small.model.backbone.init_cfg.checkpoint = str(tmp_path / name)
        if name == 'mine.safetensors':
            assert main(['weights', 'convert', str(tmp_path / KNOWN), str(tmp_path / name)]) == 0
        if name == 'bands.pth':
            other = [dict(type='LoadMultiBandImage', mean=[1.0] * 3, std=[2.0] * 3)]
            ours(small, other, tmp_path / name)
        assert not [*mismatches(built(small), BANDS)]
    assert expected_normalisation(tmp_path / 'mine.safetensors') == Normalisation(*HALF)


def test_a_files_record_comes_before_its_name(small: Config, tmp_path: Path) -> None:
    path = ours(small, COLOURS, tmp_path / 'coatnet_0_rw_224.sw_in1k.pth', mean=[1.0] * 3, std=[2.0] * 3)
    said = Normalisation((1.0,) * 3, (2.0,) * 3)
    assert expected_normalisation(path) == expected_normalisation(path, read_source(path)) == said
    assert (
        expected_normalisation(tmp_path / KNOWN) == expected_normalisation(tmp_path / KNOWN, {}) == Normalisation(*HALF)
    )


@pytest.mark.parametrize(
    'theirs, before, said',
    [
        (COLOURS, {}, None),
        (COLOURS, dict(mean=HALF[0]), 'ours.pth was trained on RGB of mean 127.5.* gives it RGB of mean 123.675'),
        (COLOURS, dict(bgr_to_rgb=False), 'ours.pth was trained on BGR of mean 123.675.* gives it RGB'),
        (BANDS, {}, 'ours.pth was trained on channels as in its files of mean 500.* gives it RGB'),
    ],
)
def test_init_model_says_it_of_weights_that_are_read_as_data(
    theirs: list[dict], before: dict, said: str | None, small: Config, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = ours(small, theirs, tmp_path / 'ours.pth', **before)
    small.test_dataloader = dict(dataset=dict(type='ADE20KDataset'))
    init_model(small, f'mmseg_volo://{path}', device='cpu')
    found = [str(w.message) for w in recwarn if 'was trained on' in str(w.message)]
    assert not found if said is None else re.search(said, *found)
