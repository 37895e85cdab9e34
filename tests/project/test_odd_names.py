"""Names of folders, files and classes that mean something to a terminal, a spreadsheet, a browser or mmengine."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import folder_data as fd
from helpers import tiny_training
from PIL import Image

from mmseg_volo.autotrain.config_writer import config_text
from mmseg_volo.config import load_config
from mmseg_volo.datasets.lists import class_text, read_classes
from mmseg_volo_cli import main

PLACE = '/a/place-that-is-nobodys-business'
TEMPLATES = '{{$ODD_PLACE:x}} {{ fileDirname }} {{_base_.model}} {{{y}}} $HOME %s%(a)s <b> \'"""'


AREAS = ('--outputs', 'areas')


def train(data: Path, work: Path, *more: str) -> int:
    """The status of a training of one iteration on a folder."""
    command = [
        'train',
        '--data',
        str(data),
        '--model',
        str(tiny_training.write_config(data.parent)),
        '--work-dir',
        str(work),
    ]
    options = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'train_dataloader.num_workers=0']
    return main([*command, '--no-amp', *more, '--cfg-options', *options])


def test_templates_in_names_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ODD_PLACE', PLACE)
    monkeypatch.chdir(tmp_path)
    data, work = fd.write(tmp_path / TEMPLATES, 4), tmp_path / 'work $HOME %s <b> "{y}"'
    for part in ('images', 'masks'):
        (data / part / '00.png').rename(data / part / f'{TEMPLATES}.png')
    (data / 'classes.txt').write_text(f'{TEMPLATES}\n=1+1\ncar\n')
    assert train(data, work) == 0
    (recipe,) = (work / 'recipe').glob('*.py')
    assert load_config(recipe).data_root == data.as_posix()
    assert read_classes(work / 'recipe/classes.csv')[0][:2] == (TEMPLATES, '=1+1')
    (dumped,) = work.glob('*.py')
    assert load_config(dumped).train_dataloader.dataset.data_root == data.as_posix()
    for path in work.rglob('*'):
        assert not path.is_file() or PLACE.encode() not in path.read_bytes(), path
    page = (work / 'report.html').read_text()
    assert TEMPLATES not in page  # its marks are escaped


@pytest.mark.parametrize('name', ['a\nb', 'a\x1b[31mb', 'a\u202eb', 'a\tb'])
def test_control_characters_are_refused_before_anything_is_written(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    plain = fd.write(tmp_path / 'plain', 4)
    assert train(fd.write(tmp_path / name, 4), tmp_path / 'work') == 2
    assert train(plain, tmp_path / 'works' / name) == 2
    assert train(plain, tmp_path / 'work', '--classes', 'a', 'b', name) == 2
    for part in ('images', 'masks'):
        (plain / part / '00.png').rename(plain / part / f'{name}.png')
    assert train(plain, tmp_path / 'work') == 2
    said = capsys.readouterr().err
    assert said.count(repr(name)[1:-1]) == said.count('error: ') == 4 and name not in said
    assert not (tmp_path / 'work').exists() and not (tmp_path / 'works').exists()


@pytest.mark.parametrize('name', ['{{$ODD_PLACE:x}}', "it's", '{{ fileDirname }}'])
def test_work_dirs_that_a_config_would_read_as_code(tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    assert train(fd.write(tmp_path / 'data', 4), tmp_path / name) == 2
    assert 'means something in a config' in capsys.readouterr().err and not (tmp_path / name).exists()


def test_configs_load_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ODD_PLACE', PLACE)
    names = [TEMPLATES, '\\{{$ODD_PLACE:x}}', '{{{{', "{{'$ODD_PLACE:5'}}", '{ {', 'C:\\x7b{{ fileBasename }}']
    path = tmp_path / 'a.py'
    path.write_text(config_text(dict(data_root=names[0], model={'type': names, '{{x': (1,)}), '\n'.join(names)))
    cfg = load_config(path)
    assert (cfg.data_root, cfg.model) == (names[0], {'type': names, '{{x': (1,)})
    cfg.dump(tmp_path / 'b.py')
    assert load_config(tmp_path / 'b.py').model == cfg.model


def test_areas_hold_no_formulas_and_recipes_keep_names(tmp_path: Path) -> None:
    checkpoint = tiny_training.predictor(tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    names = ['=cmd()', '+1', '-1', '@sum', "'q", 'a, "b"', *'cdef']
    content['meta']['dataset_meta']['classes'] = names
    torch.save(content, checkpoint)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / '=1.png')
    assert main(['predict', str(checkpoint), str(tmp_path / '=1.png'), '--out', str(tmp_path / 'out'), *AREAS]) == 0
    with (tmp_path / 'out/areas.csv').open(newline='') as file:
        rows = [*csv.DictReader(file)]
    assert [row['class'] for row in rows] == ["'=cmd()", "'+1", "'-1", "'@sum", *names[4:]]
    assert {row['file'] for row in rows} == {"'=1.png"}
    (tmp_path / 'classes.csv').write_text(class_text(names, [*range(10)], [], None))
    assert read_classes(tmp_path / 'classes.csv')[0] == tuple(names)


def test_a_checkpoint_whose_classes_obey_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = tiny_training.predictor(tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    content['meta']['dataset_meta']['classes'] = ['a\x1b]0;x\x07', *'bcdefghij']
    torch.save(content, checkpoint)
    assert main(['predict', str(checkpoint), str(tmp_path / 'a.png'), '--out', str(tmp_path / 'out')]) == 2
    said = capsys.readouterr().err
    assert 'classes are names without control characters' in said and '\x1b' not in said


def test_lists_that_other_programs_have_saved(tmp_path: Path) -> None:
    data = fd.write(tmp_path / 'data', 4)
    command = ['train', '--data', str(data), '--model', str(tiny_training.write_config(tmp_path)), '--work-dir', 'w']
    command[-1] = str(tmp_path / 'work')
    assert main([*command, '--plan-only']) == 0
    (recipe,) = (tmp_path / 'work/recipe').glob('*.py')
    for path in (tmp_path / 'work/recipe').glob('*.csv'):  # as a spreadsheet does in Germany, and Notepad
        text = path.read_text().replace(',', ';').replace('\n', '\r\n')
        path.write_bytes(text.encode('utf-16' if path.stem == 'val' else 'utf-8-sig'))
    assert main(['check', str(recipe)]) == 0
