"""Configs whose parts cannot work together, refused before the first step; the neighbours that can."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from helpers import folder_data as fd
from helpers.tiny_training import train, write_config

from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.config_checks import config_notes
from mmseg_volo_cli import main


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 1, 64, 128)


EPOCHS = """
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1), logger=dict(log_metric_by_epoch=True))
log_processor = dict(by_epoch=True)
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=2, by_epoch=True)]
"""
LOAD = "dict(type='LoadImageFromFile')"
PACK = "dict(type='PackSegInputs')"
LABEL = "dict(type='LoadAnnotations')"
REDUCED = "dict(type='LoadAnnotations', reduce_zero_label=True)"
FLIP, PAD = "dict(type='RandomFlip', prob=1)", "dict(type='Pad', size=(128, 128))"
CROP = "dict(type='RandomCrop', crop_size=(64, 64))"


def steps(role: str, *found: str) -> str:
    return f'{role}_dataloader["dataset"] = dict(pipeline=[{", ".join(found)}])\n'


BAD = {
    'sampler is ResumableInfiniteSampler, which never ends': EPOCHS,
    'sampler is InfiniteSampler, which': EPOCHS + "train_dataloader['sampler'] = dict(type='InfiniteSampler')\n",
    'param_scheduler.0 .PolyLR. counts epochs but SegTrainLoop': "param_scheduler = [dict(type='PolyLR', end=2)]\n",
    'checkpoint counts epochs but SegTrainLoop': 'default_hooks = dict(checkpoint=dict(by_epoch=True))\n',
    'crops to 96x96 .RandomCrop.crop_size.* 64x64': steps('train', LOAD, LABEL, CROP.replace('64', '96'), PACK),
    'model.decode_head.loss_decode: CrossEntropyLoss fails with both.*loss_decode.type=WeightedCrossEntropy': (
        'model["decode_head"].update(loss_decode=dict(avg_non_ignore=True, class_weight=[1.0] * 10))\n'
    ),
    'either size or size_divisor': 'model["data_preprocessor"].update(size=None)\n',
    'train_dataloader: no step of its pipeline loads labels': steps('train', LOAD, CROP.replace('64', '32'), PACK),
    'val_dataloader: no step of its pipeline loads labels': steps('val', LOAD, PACK),
    'train_dataloader: its pipeline must end with PackSegInputs': steps('train', LOAD, LABEL, CROP),
    'train_dataloader: RandomCrop of its pipeline fails at the first item .KeyError': steps(
        'train', LABEL, CROP, LOAD, PACK
    ),
    'val_dataloader: RandomCrop picks another crop': steps('val', LOAD, LABEL, CROP, PACK),
    'val_dataloader: RandomFlip flips the label too': steps(
        'val', LOAD, LABEL, "dict(type='RandomFlip', prob=1)", PACK
    ),
    'val_dataloader: Resize comes after': steps('val', LOAD, LABEL, "dict(type='Resize', scale=(64, 32))", PACK),
    'labels are 128x128 after .* predictions 128x64': steps(
        'val', LOAD, LABEL, "dict(type='Pad', size=(128, 128))", PACK
    ),
    'LoadAnnotations has reduce_zero_label=True, but its data set False': 'train_dataloader = dict(dataset='
    f'dict(reduce_zero_label=False, pipeline=[{LOAD}, {REDUCED}, {PACK}]))\n',
    'images have 3 channels after the pipeline, but the model takes 4': 'model["data_preprocessor"].update('
    'mean=[1, 2, 3, 4], std=[1, 1, 1, 1])\n',
}


@pytest.mark.parametrize('said', BAD)
def test_what_cannot_work(said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(write_config(tmp_path, BAD[said]), data, tmp_path / 'work', '--no-check') == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and len(error.splitlines()) == 1
    assert not [*(tmp_path / 'work').glob('*/vis_data')]  # before there is a session


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        ('train_dataloader.update(persistent_workers=True)\n', 'set train_dataloader.persistent_workers=False, too$'),
        (
            'optim_wrapper = dict(optimizer=dict(_delete_=True, type="SGD", lr=0.1))\n',
            'set optim_wrapper.optimizer.weight_decay, 0',
        ),
    ],
)
def test_what_cannot_be_built_says_what_to_set(
    more: str, said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train(write_config(tmp_path, more), data, tmp_path / 'work', '--no-check') == 2
    error = capsys.readouterr().err
    assert re.search(said, error.strip()) and len(error.splitlines()) == 1


def test_no_seed_need_be_given(data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, 'randomness = dict(deterministic=True)\n')
    try:
        assert train(config, data, tmp_path / 'work', '--no-check', 'train_cfg.max_iters=1') == 0
    finally:
        torch.use_deterministic_algorithms(False)


def test_epochs_work_and_say_how_they_resume(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Two epochs of two iterations; two more by a resume, with a learning rate."""
    sampler = "train_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=True)\n"
    config, work = write_config(tmp_path, EPOCHS + sampler), tmp_path / 'work'
    assert train(config, data, work, '--no-check') == 0
    said = capsys.readouterr().out
    assert 'EpochBasedTrainLoop does not resume exactly' in said and (work / 'epoch_2.pth').is_file()
    assert train(config, data, work, '--no-check', '--resume', 'train_cfg.max_epochs=4') == 0
    said = capsys.readouterr().out
    assert 'EpochBasedTrainLoop does not resume exactly' in said and (work / 'epoch_4.pth').is_file()
    assert 'lengthened from 2 to 4 epochs' in said and 'Epoch(train) [3][1/2]  base_lr: 0.0' not in said


RECIPE = """
_base_ = ['work/recipe/work.py']
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='{label}'), dict(type='RandomCrop', crop_size=(64, 64)),
                  dict(type='PackSegInputs')]
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
"""


@pytest.mark.parametrize(
    ('mask', 'said'),
    [
        (fd.as_black_and_white, 'in the masks of this FolderDataset 255 stands for foreground: use LoadMask'),
        (fd.as_colours, 'colours stand for classes: use LoadMask'),
        (fd.as_index, None),
    ],
)
def test_labels_that_a_recipe_maps(
    mask: fd.Write, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    model = write_config(tmp_path)
    data = str(fd.write(Path('data'), 4, mask))
    assert main(['train', '--data', data, '--model', str(model), '--work-dir', 'work', '--plan-only']) == 0
    Path('edit.py').write_text(RECIPE.format(label='LoadAnnotations'))
    short = ['--no-amp', '--cfg-options', 'train_cfg.max_iters=1', 'val_dataloader.num_workers=0']
    short += ['val_dataloader.persistent_workers=False']
    assert main(['train', 'edit.py', '--work-dir', 'other', *short]) == (2 if said else 0)
    assert (said or '') in capsys.readouterr().err
    Path('edit.py').write_text(RECIPE.format(label='LoadMask'))
    if said:
        assert main(['train', 'edit.py', '--work-dir', 'other', *short]) == 0


def test_bands_are_not_cut_to_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(fd.write(Path('data'), 4, image=fd.deep))
    made = ['--model', str(write_config(tmp_path)), '--work-dir', 'work', '--plan-only']
    assert main(['train', '--data', data, *made]) == 0
    Path('edit.py').write_text(RECIPE.format(label='LoadMask'))
    assert main(['train', 'edit.py', '--work-dir', 'other']) == 2
    assert 'LoadImageFromFile converts images to 8-bit RGB' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        ('', None),
        (
            'train_cfg.update(max_iters=1000)\n',
            'eta_min 0. after 500 of 1000 updates.*scheduler.1.end=1000',
        ),
        ('train_cfg.update(max_iters=499)\n', None),
        ("param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=3, by_epoch=False)]\n", None),
        ("param_scheduler = [dict(type='MultiStepLR', milestones=[2], by_epoch=False)]\n", None),
        ('train_cfg.update(val_begin=9)\n', 'no validation will run: train_cfg.val_begin is 9.* ends at 4'),
        ('log_processor = dict(by_epoch=True)\n', 'log_processor counts epochs but SegTrainLoop iterations'),
        (
            "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4)\n",
            'IterBasedTrainLoop does not resume exactly',
        ),
    ],
)
def test_notes(more: str, said: str | None, tmp_path: Path) -> None:
    found = [*config_notes(load_config(write_config(tmp_path, more)))]
    assert len(found) == (said is not None)
    assert not said or re.search(said, found[0])
