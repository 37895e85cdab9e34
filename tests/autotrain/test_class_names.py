"""What names classes: words of the command line and files of any tool."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import folder_data as fd
from PIL import Image

from mmseg_volo.autotrain.class_names import painted, read_names
from mmseg_volo.errors import UsageError
from mmseg_volo_cli import main

SKY, CAR = 0x808080, 0x400080
COLOURS = {
    'class_dict.csv': 'name,r,g,b\nSky,128,128,128\nCar,64,0,128\n',
    'Class_Dict.CSV': 'Name; R; G; B; notes\nSky;128;128;128;far\nCar;64;0;128;\n',
    'label_colors.txt': '128 128 128\tSky\n64 0 128\tCar\n',
    'labelmap.txt': '# label:color_rgb:parts:actions\nSky:128,128,128::\nCar:64,0,128:door,wheel:drive\n',
    'labels.txt': 'Sky 128 128 128\nCar 64 0 128\n',
    'colormap.txt': 'name r g b\nSky 128 128 128\nCar 64 0 128\n',
    'classes.txt': 'Sky (128, 128, 128)\nCar: rgb(64, 0, 128)\n',
    'palette.csv': 'class,hex\nSky,#808080\nCar,#400080\n',
    'label_map.csv': 'colour,class\n128 128 128,Sky\n64 0 128,Car\n',
    'classes.json': '{"Sky": [128, 128, 128], "Car": "#400080"}',
    'labels.json': '{"128,128,128": "Sky", "64,0,128": "Car"}',
    'label_class_dict.csv': 'name,r,g,b\nSky,128,128,128\nCar,64,0,128\n',
    'classes.csv': 'class,code,colour\nSky,128 128 128,\nCar,64 0 128,\n,0 0 0,\n',
}
VALUES = {
    'classes.txt': '0 Sky\n1 Car, big\n',
    'labels.txt': '0: Sky\n1: Car, big\n',
    'names.txt': '0,Sky\n1,"Car, big"\n',
    'codes.txt': 'Sky 0\r\nCar, big 1\r\n',
    'classes.tsv': '0\tSky\n1\tCar, big\n',
    '_classes.csv': 'Pixel Value, Class\n0, Sky\n1, "Car, big"\n',
    'labels.csv': 'class;class_name;supercategory\n0;Sky;a\n1;Car, big;b\n',
    'objectInfo150.txt': 'Idx\tRatio\tTrain\tName\n0\t0.15\t11664\tSky\n1\t0.1\t63\tCar, big\n',
    'categories.txt': '-1 unlabelled\n0 Sky\n1 Car, big\n',
    'id2label.json': '{"0": "Sky", "1": "Car, big"}',
    'config.json': '{"model_type": "x", "id2label": {"0": "Sky", "1": "Car, big"}, "label2id": {"Sky": 0}}',
    'dataset.json': '{"channel_names": {"0": "CT"}, "labels": {"Sky": 0, "Car, big": 1}, "numTraining": 4}',
    'classes.json': '[{"id": 0, "name": "Sky", "color": [1, 2, 3]}, {"id": 1, "name": "Car, big", "color": [3, 2, 1]}]',
    'categories.json': '{"categories": [{"id": 1, "name": "Car, big"}, {"id": 0, "name": "Sky"}]}',
    'data.yaml': 'train: a\nnc: 2\nnames:\n  0: Sky\n  1: Car, big\n',
}
NAMES = {
    'classes.txt': '\ufeffSky\r\n"Car, big"\r\n\r\n',
    'codes.txt': 'Sky\nCar, big',
    'obj.names': 'Sky\nCar, big\n',
    'classes.csv': 'name\nSky\n"Car, big"\n',
    'classes.json': '["Sky", "Car, big"]',
    'dataset.yaml': 'names: [Sky, "Car, big"]\n',
    'meta.json': '{"classes": [{"id": 7, "title": "Sky", "shape": "polygon", "color": "#808080"}, '
    '{"id": 9, "title": "Car, big", "shape": "polygon", "color": "#400080"}]}',
    'config.json': '{"labels": [{"readable": "Sky", "name": "a--b", "color": [128, 128, 128]}, '
    '{"readable": "Car, big", "name": "a--c", "color": [64, 0, 128]}]}',
}


def read(folder: Path, **files: str) -> list[tuple]:
    """Names and codes that files in a folder give."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding='utf-8')
    return [(item.name, item.code) for item in read_names((), folder)[0]]


@pytest.mark.parametrize('name', COLOURS)
def test_files_of_colours(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, **{name: COLOURS[name]}) == [('Sky', SKY), ('Car', CAR)]
    named, source, notes = read_names((), tmp_path)
    assert all(item.coloured for item in named) and source == name and not notes


@pytest.mark.parametrize('name', VALUES)
def test_files_of_values(tmp_path: Path, name: str) -> None:
    assert sorted(read(tmp_path, **{name: VALUES[name]}), key=lambda item: item[1]) == [('Sky', 0), ('Car, big', 1)]


@pytest.mark.parametrize('name', NAMES)
def test_files_of_names(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, **{name: NAMES[name]}) == [('Sky', None), ('Car, big', None)]


def test_colours_beside_values_are_for_masks_of_colours(tmp_path: Path) -> None:
    assert read(tmp_path, **{'classes.csv': 'id,name,r,g,b\n0,Sky,128,128,128\n1,Car,64,0,128\n'}) == [
        ('Sky', 0),
        ('Car', 1),
    ]
    assert [item.code for item in painted(read_names((), tmp_path)[0])] == [SKY, CAR]
    (tmp_path / 'classes.csv').write_text('0 Sky 128 128 128\n1 Car 64 0 128\n')
    assert [item.code for item in painted(read_names((), tmp_path)[0])] == [SKY, CAR]


@pytest.mark.parametrize(
    'text, expected',
    [
        ('lane 1\nlane 2\nroad\n', ['lane 1', 'lane 2', 'road']),
        ('lane 1\nlane 2\n', ['lane 1', 'lane 2']),
        ('#1 road\n#2 road\n', ['#1 road', '#2 road']),
        ('# of 2025\nroad\nC++\n', ['road', 'C++']),
        ('0 class 1\n1 class 2\n', ['class 1', 'class 2']),
        ('class 1 0 0 0\nclass 2 9 9 9\n', ['class 1', 'class 2']),
        ('a=1\nb=2\n', ['a', 'b']),
        ('road, car, "tree"\n', ['road', 'car', 'tree']),
        ('rock/paper\n=SUM(A1)\n<b>\n', ['rock/paper', '=SUM(A1)', '<b>']),
    ],
)
def test_names_with_numbers_and_marks(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert [name for name, _ in read(tmp_path, **{'classes.txt': text})] == expected


@pytest.mark.parametrize(
    'files, said',
    [
        ({'classes.txt': 'a\nb\na\n'}, 'classes.txt: the class a is listed twice'),
        ({'classes.csv': 'id,name\n0,a\n0,b\n'}, 'classes.csv: a and b have the same value'),
        ({'classes.csv': 'id,name\n0,a\n1,\n'}, 'classes.csv: class names .* one is empty'),
        ({'classes.csv': 'id,name\n0,a\nx,b\n'}, "classes.csv: 'b' has no value or colour"),
        ({'classes.txt': 'a 0 0 0\nb 0 0 256\n'}, 'a colour beyond 255'),
        ({'classes.txt': 'a\n12\n'}, "'12' is not a class name"),
        ({'classes.json': '["a", "b\\u001b[31m"]'}, r"plain text, 'b\\x1b\[31m'"),
        ({'classes.json': '["a", "b\\nc"]'}, r"'b\\nc' has characters"),
        ({'classes.txt': 'a\nb\u202egnp\n'}, r"'b\\u202egnp' has characters"),
        (
            {'train/_classes.csv': 'id,name\n0,a\n1,b\n', 'valid/_classes.csv': 'id,name\n0,a\n1,c\n'},
            'different classes',
        ),
        (
            {'train/_classes.csv': 'id,name\n0,a\n1,b\n', 'valid/_classes.csv': 'id,name\n0,b\n1,a\n'},
            'disagree on the value or colour of a',
        ),
        ({'classes.txt': 'a\nb\n', 'names.txt': 'b\na\n'}, 'classes.txt and names.txt .* different orders'),
    ],
)
def test_files_that_cannot_be_right_are_refused(tmp_path: Path, files: dict, said: str) -> None:
    for folder in ('train', 'valid'):
        (tmp_path / folder).mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding='utf-8')
    with pytest.raises(UsageError, match=said):
        read_names((), tmp_path, [tmp_path / 'train', tmp_path / 'valid'])


def test_files_that_are_not_used_are_named(tmp_path: Path) -> None:
    files = {
        'classes.txt': 'a\nb\n',
        'codes.txt': 'x\ny\n',
        'data.yaml': ': : [',
        'label_colors.txt': 'b 1 1 1\na 0 0 0\n',
    }
    assert read(tmp_path, **files, **{'labels.csv': 'image,label\n1.png,1\n', 'config.json': '{"a": 1}'}) == [
        ('a', None),
        ('b', None),
    ]
    named, source, notes = read_names((), tmp_path)
    assert [item.colour for item in named] == [0, 0x010101] and source == 'classes.txt'
    assert [note.split()[0] for note in notes] == ['labels.csv', 'codes.txt', 'data.yaml', 'config.json']


@pytest.mark.parametrize(
    'words, said',
    [
        (['car,tree,road'], 'separate names by spaces, car tree road'),
        (['car=1,tree=2'], 'separate names by spaces, car=1 tree=2'),
        (['nowhere.txt'], 'no such file'),
        (['a=1', 'b='], 'expected NAME, NAME=VALUE'),
        (['a=1', 'b=1,2'], 'expected NAME, NAME=VALUE'),
        (['a=1', '=2'], 'expected NAME, NAME=VALUE'),
        (['a=1', 'b=-2'], 'expected NAME, NAME=VALUE'),
        (['a', 'b\x1b]0;x\x07'], 'characters that cannot be shown'),
        (['a=1', 'b'], 'b has no value'),
    ],
)
def test_words_that_cannot_be_right_are_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_names(words, tmp_path)


def test_words() -> None:
    named, source, _ = read_names(['a=b=1', 'car, big=2', 'red=3'], Path('nowhere'))
    assert [(item.name, item.code) for item in named] == [('a=b', 1), ('car, big', 2), ('red', 3)]
    assert [item.code for item in read_names(['a=1,2,3', 'b=#ff0000'], Path('nowhere'))[0]] == [0x010203, 0xFF0000]
    assert [item.name for item in read_names(['size=big', 'x'], Path('nowhere'))[0]] == ['size=big', 'x']


def plan(data: Path, *more: str) -> int:
    """The status of a plan for a folder."""
    command = ['train', '--data', str(data), '--model', 'caformer_s18', '--weights', 'none', '--size', '64']
    return main([*command, '--plan-only', '--work-dir', str(data.parent / 'work'), *more])


def test_labelme_counts_from_minus_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = fd.write(tmp_path / 'data', 4)
    (data / 'labels.txt').write_text('__ignore__\r\n_background_\r\ncar\r\ntree\r\n', encoding='utf-16')
    assert plan(data) == 0
    out = capsys.readouterr().out
    assert 'ignored: 255' in out and 'no pixel in any mask' not in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith(('_background_', 'car', 'tree'))] == [
        ['_background_', '0'],
        ['car', '1'],
        ['tree', '2'],
    ]


def test_names_beside_the_images_as_roboflow_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / 'data'
    for split, numbers in (('train', range(4)), ('valid', range(4, 6))):
        (data / split).mkdir(parents=True)
        (data / split / '_classes.csv').write_text('Pixel Value, Class\n0, background\n1, car\n2, tree\n')
        for number in numbers:
            mask = fd.indices(number)
            Image.fromarray(fd.picture(mask)).save(data / split / f'{number}_jpg.rf.{number:08x}.jpg')
            Image.fromarray(mask.astype(np.uint8)).save(data / split / f'{number}_jpg.rf.{number:08x}_mask.png')
    assert plan(data) == 0
    assert 'train/_classes.csv' in (out := capsys.readouterr().out) and '\ntree ' in out
    (data / 'valid/_classes.csv').write_text('Pixel Value, Class\n0, background\n1, tree\n2, car\n')
    assert plan(data) == 2
    assert 'disagree on the value or colour of car' in capsys.readouterr().err


@pytest.mark.parametrize(
    'text, said',
    [
        ('1 car\n2 tree\n', 'add a line for each to labels.txt, or .*--ignore 0'),
        ('car\ntree\n', 'or name them all: --classes NAME=0 car=1 tree=2'),
    ],
)
def test_what_is_not_named_can_be(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture) -> None:
    data = fd.write(tmp_path / 'data', 4)
    (data / 'labels.txt').write_text(text)
    assert plan(data) == 2
    assert re.search(said, capsys.readouterr().err)


def test_names_with_colours_and_masks_of_values(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = fd.write(tmp_path / 'data', 4)
    labels = [dict(readable=name, color=[i, 9, 9]) for i, name in enumerate(('ground', 'car', 'tree'))]
    (data / 'config.json').write_text(json.dumps(dict(labels=labels)))
    assert plan(data) == 0
    assert '\ntree ' in capsys.readouterr().out
