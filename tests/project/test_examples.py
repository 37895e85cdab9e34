"""The examples, run as a user would, with fewer iterations."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import folder_data as fd
from helpers.folder_training import QUICK
from helpers.paths import ROOT
from helpers.tiny_training import write_config

import mmseg_volo
from mmseg_volo.io.weights import read_source
from mmseg_volo_cli import main

EXAMPLES = ROOT / 'examples'
ITERATIONS = 40


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples and configs, so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp('checkout')
    for name in ('examples', 'configs'):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__', 'work_dirs'))
    return folder


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their modules can be imported, as where one of them is run."""
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture(scope='module')
def trained(place: Path) -> tuple[Path, str]:
    """(results, what was said) of the first example, in a process of its own."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, str(place / 'examples/folder_to_predictions.py'), '--iters', str(ITERATIONS)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=place, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not re.search('warn|deprecat|error', done.stdout + done.stderr, re.I), done.stdout + done.stderr
    return place / 'work_dirs/folder', done.stdout


def test_a_folder_to_predictions(trained: tuple[Path, str]) -> None:
    out, said = trained
    assert float(re.findall(r'mIoU: ([\d.]+)', said)[-1]) > 60, said  # background alone gives below 30
    assert re.search(r"0000.jpg \{'background': '\d+%', 'disc': '\d+%', 'square': '\d+%'\}", said)
    masks = sorted((out / 'predictions/masks').iterdir())
    assert len(masks) == len([*(out / 'data/images/val').iterdir()]) == 8
    truth = [cv2.imread(str(out / 'data/masks/val' / path.name), cv2.IMREAD_UNCHANGED) for path in masks]
    found = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in masks]
    assert np.mean(np.array(truth) == np.array(found)) > 0.85


def test_fine_tuning_with_other_classes(trained: tuple[Path, str], examples: None, tmp_path: Path) -> None:
    import fine_tune

    first = trained[0] / f'iter_{ITERATIONS}.pth'
    second = fine_tune.run(first, None, fine_tune.CLASSES, tmp_path, 2)
    before, after = (read_source(path)['state_dict'] for path in (first, second))
    assert before.keys() == after.keys()
    for key, weight in before.items():  # after one step of the warm-up the backbone is where it was, the head is new
        if key.startswith('backbone.') and weight.is_floating_point():
            torch.testing.assert_close(after[key], weight, atol=2e-3, rtol=0, msg=key)
    head = 'decode_head.fusion_conv.conv.weight'
    assert (after[head] - before[head]).abs().max() > 0.01
    assert [w['decode_head.conv_seg.weight'].shape[0] for w in (before, after)] == [3, 4]
    model = mmseg_volo.load(second, device='cpu')
    assert [*model.dataset_meta['classes']] == fine_tune.CLASSES


def test_fine_tuning_what_train_data_made(examples: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """With weights of three classes, 300 of them, two, or on 16-bit images."""
    import fine_tune

    def uneven(path: Path, mask: np.ndarray) -> None:
        mask[5:, 5:][mask[5:, 5:] == 2] = 0
        mask[:4, :4] = 2
        fd.as_index(path, mask)

    given = ['--no-amp', '--size', '64', '--batch', '2', '--epochs', '0.5', '--seed', '1']
    kinds = dict(few=(uneven, fd.rgb), many=(fd.as_sixteen_bits, fd.rgb), two=(fd.as_black_and_white, fd.rgb))
    for name, (mask, image) in (kinds | dict(deep=(fd.as_index, fd.deep))).items():
        data, work = fd.write(tmp_path / name, 4, mask, image), tmp_path / f'{name}_work'
        config = str(write_config(tmp_path, QUICK))
        assert main(['train', '--data', str(data), '--model', config, '--work-dir', str(work), *given]) == 0
        assert name != 'few' or 'class_weight' in (work / f'recipe/{work.name}.py').read_text()
        (first,) = work.glob('iter_*.pth')
        if name == 'deep':
            message = 'was trained on images other than 8-bit RGB: fine-tune it with mmseg-volo train --data'
            with pytest.raises(ValueError, match=message):
                fine_tune.run(first, None, fine_tune.CLASSES, tmp_path / 'tuned', 2)
            continue
        second = fine_tune.run(first, None, fine_tune.CLASSES, tmp_path / f'{name}_tuned', 2)
        model = mmseg_volo.load(second, device='cpu')
        assert model.decode_head.out_channels == 4 and model.decode_head.ignore_index == 255


def test_the_new_backbone_trains(examples: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    import train_new_backbone

    found = train_new_backbone.run(tmp_path, 20)
    assert found.mask.shape == (64, 64) and [*found.classes] == ['background', 'disc', 'square']
    assert float(re.findall(r'mIoU: ([\d.]+)', capsys.readouterr().out)[-1]) > 50
    said = r"asks for model\.backbone\.type='TinyConv', which is not on the allow-list for checkpoints"
    with pytest.raises(ValueError, match=said):
        mmseg_volo.load(tmp_path / 'iter_20.pth')


def test_the_new_backbone_keeps_the_contract(examples: None) -> None:
    assert len((EXAMPLES / 'new_backbone.py').read_text().splitlines()) <= 40
    from new_backbone import TinyConv

    for size in ((32, 32), (33, 47), (97, 50)):
        maps = TinyConv().eval()(torch.randn(2, 3, *size))
        for m, channels, stride in zip(maps, (16, 32, 64, 64), (4, 8, 16, 32), strict=True):
            assert m.shape == (2, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
    model = TinyConv(out_indices=(0, 2), in_channels=4, frozen_stages=1).train()
    sum(m.square().sum() for m in model(torch.randn(2, 4, 64, 64))).backward()
    frozen = {name for name, p in model.named_parameters() if p.grad is None}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(('downs.0', 'stages.0'))}
    ids = model.layer_ids()
    assert ids['downs.0.weight'] == 0 and ids['stages.0.0.mlp.0.weight'] == 1 and ids['stages.2.1.mlp.0.weight'] == 4
    assert len(model.block_list()) == 4
    again = TinyConv(out_indices=(0, 2), in_channels=4)
    again.load_pretrained(model.state_dict())
    with pytest.raises(ValueError, match='1 unknown: more'):
        again.load_pretrained({**model.state_dict(), 'more': torch.zeros(1)})


def test_the_notebook(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip('nbformat', reason='nbformat is not installed')
    client = pytest.importorskip('nbclient', reason='nbclient is not installed')
    pytest.importorskip('ipykernel', reason='ipykernel is not installed')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    notebook = nbformat.read(EXAMPLES / 'folder_to_predictions.ipynb', as_version=4)
    nbformat.validate(notebook)
    codes = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert len(codes) > 5 and not any(cell.outputs or cell.execution_count for cell in codes), (
        'commit it without outputs'
    )
    (setting,) = [cell for cell in codes if 'ITERATIONS = 100' in cell.source]
    setting.source = setting.source.replace('ITERATIONS = 100', 'ITERATIONS = 20')
    resources = dict(metadata=dict(path=str(place / 'examples')))
    client.NotebookClient(notebook, timeout=200, kernel_name='python3', resources=resources).execute()
    pictures = [o for cell in codes for o in cell.outputs if 'image/png' in o.get('data', {})]
    assert len(pictures) == 2
    assert len([*(place / 'examples/work_dirs/notebook/predictions/masks').iterdir()]) == 8
