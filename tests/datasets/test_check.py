"""Check every image and label before a training starts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.labels import cut, files, values, write_value
from helpers.tiny_training import train, write_config
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from PIL import ExifTags, Image

from mmseg_volo.config import load_config
from mmseg_volo.datasets.check import config as check
from mmseg_volo.datasets.check.files import IGNORED
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.distributed import is_first
from mmseg_volo.errors import UsageError
from mmseg_volo.utils.text import format_ranges
from mmseg_volo_cli import main


@pytest.fixture(scope='module')
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 12, 2, 64, 128)


@pytest.fixture
def data(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may break."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    return Path(shutil.copytree(original, tmp_path / 'data'))


def checked(data: Path, capsys: pytest.CaptureFixture, *options: str) -> tuple[int, str, str]:
    status = main(['check', 'volo_demo', *options, '--cfg-options', f'data_root={data}'])
    said = capsys.readouterr()
    return status, said.out, said.err


def write_rgb(label: Path) -> None:
    Image.fromarray(np.stack([values(label)] * 3, -1)).save(label)


def write_16_bits(label: Path, value: int) -> None:
    wide = values(label).astype(np.uint16)
    wide[0, 0] = value
    cv2.imwrite(str(label), wide)


def write_smaller(label: Path) -> None:
    Image.fromarray(values(label)[::2, ::2]).save(label)


FAULTS: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    'empty image, an error without a name': (r'0 bytes\) is not a readable', lambda i, m: i.write_bytes(b'')),
    'text for a label, an error without a name': (r'4 bytes\) is not a readable', lambda i, m: m.write_text('text')),
    'cut image, read as far as it goes': ('is not a readable picture', lambda i, m: cut(i)),
    'cut label, an error without a name': ('is not a readable picture', lambda i, m: cut(m)),
    'no label, an error in the middle': ('is missing', lambda i, m: m.unlink()),
    'value 37, IndexError without a name': (r'holds 37, expected 0 to 18 and 255', lambda i, m: write_value(m, 37)),
    '16-bit label 259, which becomes 3': (r'holds 259, expected', lambda i, m: write_16_bits(m, 259)),
    'label of three channels': ('is a picture of mode RGB, expected class indices', lambda i, m: write_rgb(m)),
    'label of half the size, silently rescaled': ('is 64x32, its image 128x64', lambda i, m: write_smaller(m)),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_before_the_first_iteration_it_is_named(fault: str, data: Path, capsys: pytest.CaptureFixture) -> None:
    message, damage = FAULTS[fault]
    image, label = files(data)[5]
    damage(image, label)
    assert train('volo_demo', data, Path('work')) == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and (str(image) in said or str(label) in said), said
    assert not Path('work').exists()
    assert 'Traceback' not in said
    assert checked(data, capsys)[0] == 2


def test_every_kind_lists_ten_files_and_the_report_all(data: Path, capsys: pytest.CaptureFixture) -> None:
    pairs = files(data)
    for _, label in pairs[:11]:
        write_value(label, 99)
    pairs[10][0].write_bytes(b'')
    status, printed, error = checked(data, capsys, '--out', 'report.json')
    assert status == 2 and len(re.findall('holds 99', error)) == 10
    assert re.search(r'1 unreadable: copy.*\n +.*0 bytes', error)
    write_value(files(data)[11][1], 99)
    status, printed, error = checked(data, capsys, '--out', 'report.json')
    assert len(re.findall('holds 99', error)) == 10 and 'and 1 more' in error
    report = json.loads(Path('report.json').read_text())
    assert len(report['faults']['values']) == 11 and len(report['faults']['unreadable']) == 1


def test_palette_labels_and_16_bits_that_fit_are_labels(data: Path, capsys: pytest.CaptureFixture) -> None:
    _, first, _ = checked(data, capsys)
    (_, one), (_, other) = files(data)[:2]
    palette = Image.fromarray(values(one))
    palette.putpalette(list(range(256)) * 3)
    palette.save(one)
    assert Image.open(one).mode == 'P'
    write_16_bits(other, int(values(other)[0, 0]))
    assert checked(data, capsys)[:2] == (0, first)


def test_histogram_counts_pixels_and_labels(data: Path, capsys: pytest.CaptureFixture) -> None:
    status, printed, error = checked(data, capsys, '--out', 'report.json')
    assert status == 0 and not re.search('error|warn', printed + error)
    report = json.loads(Path('report.json').read_text())['data_sets']
    assert report.keys() == {'train_dataloader', 'val_dataloader'}  # test is val
    for role, found in report.items():
        masks = [values(label) for _, label in files(data, role.removesuffix('_dataloader'))]
        assert found['images'] == found['labels'] == len(masks) and found['sizes'] == {'128x64': len(masks)}
        for name, train_id in zip(scenes.CLASSES, scenes.TRAIN_IDS, strict=True):
            assert found['pixels'][name] == sum(int((m == train_id).sum()) for m in masks)
            assert found['holding'][name] == sum(bool((m == train_id).any()) for m in masks)
        assert sum(found['pixels'].values()) == len(masks) * 64 * 128
    assert re.search(r'road +\d+\.\d{3} % +12 +\d+\.\d{3} % +2\n', printed)


def test_turned_images_are_named_whose_labels_do_not_turn(data: Path, capsys: pytest.CaptureFixture) -> None:
    image, label = files(data)[0]
    square = lambda path: Image.fromarray(np.array(Image.open(path))[:, :64])  # noqa: E731
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    square(label).save(label)
    square(image).save(image, exif=exif)
    status, printed, _ = checked(data, capsys)
    assert status == 0
    assert re.search(rf'note: .*1 images are turned by their EXIF.*{image.name}', printed)


def test_copies_in_training_and_validation_are_a_leak(data: Path, capsys: pytest.CaptureFixture) -> None:
    (image, _), (twin, _), *_ = files(data)
    seen = files(data, 'val')[0][0]
    shutil.copy(image, twin)
    status, printed, _ = checked(data, capsys)
    assert status == 0 and re.search(rf'note: .*1 images are copies of others.*({image.name}|{twin.name})', printed)
    shutil.copy(image, seen)
    status, _, error = checked(data, capsys)
    assert status == 2 and re.search(rf'1 copies of training images.*\n +.*{seen.name} is .*{image.name}', error)


def test_validation_on_the_training_images_is_said(data: Path, capsys: pytest.CaptureFixture) -> None:
    prefix = 'val_dataloader.dataset.data_prefix'
    options = [f'data_root={data}', f'{prefix}.img_path=leftImg8bit/train', f'{prefix}.seg_map_path=gtFine/train']
    assert main(['check', 'volo_demo', '--cfg-options', *options]) == 0
    assert re.search('note: val_dataloader: 12 images are training images', capsys.readouterr().out)


def test_labels_ignored_everywhere_are_noted_and_refused_if_all_are(data: Path, capsys: pytest.CaptureFixture) -> None:
    labels = [label for _, label in files(data)]
    for label in labels[:2]:
        Image.fromarray(np.full((64, 128), 255, np.uint8)).save(label)
    status, printed, _ = checked(data, capsys)
    assert status == 0 and re.search(rf'2 labels are ignored everywhere .*{labels[0].name}', printed)
    for label in labels:
        Image.fromarray(np.full((64, 128), 18, np.uint8)).save(label)  # a class that the demo does not use
    assert train('volo_demo', data, Path('work')) == 2
    assert re.search(r'12 ignored everywhere.*\n +.*png', capsys.readouterr().err)


def test_classes_that_never_occur_are_named(data: Path, capsys: pytest.CaptureFixture) -> None:
    for _, label in files(data):
        Image.fromarray(np.zeros((64, 128), np.uint8)).save(label)
    _, printed, _ = checked(data, capsys)
    assert 'note: train_dataloader: 9 of 10 classes have no pixel (sidewalk, building, pole, ...)' in printed


@pytest.mark.parametrize('name', ['volo_d1_ade20k', 'volo_d1_cityscapes', 'volo_camvid', 'volo_demo'])
def test_meanings_are_those_of_mmsegs_loading(name: str, tmp_path: Path) -> None:
    """Every value of a byte, through reduce_zero_label and label_map."""
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / 'label.png')
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build({**load_config(name).train_dataloader.dataset, 'pipeline': [], 'lazy_init': True})
        loading = TRANSFORMS.build(dict(type='LoadAnnotations'))
    classes = dataset.metainfo['classes']
    item = dict(
        seg_map_path=str(tmp_path / 'label.png'),
        label_map=dataset.label_map,
        reduce_zero_label=dataset.reduce_zero_label,
        seg_fields=[],
    )
    found = check.classes_by_value(item, classes, 255)
    loaded = loading(item)['gt_seg_map'].ravel()
    for value, index in enumerate(loaded):
        expected = IGNORED if index == 255 else classes[index] if index < len(classes) else None
        assert found.get(value) == expected, value


def test_format_ranges() -> None:
    assert format_ranges([255, *range(19)]) == '0 to 18 and 255'
    assert format_ranges([4]) == '4'


def test_a_file_that_was_checked_is_not_checked_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    looks = []
    scan = check.scan
    monkeypatch.setattr(check, 'scan', lambda *a, **k: looks.append(1) or scan(*a, **k))
    monkeypatch.setattr(check, 'WORTH', 0.0)
    options = [
        'train_cfg.max_iters=1',
        'train_cfg.val_interval=9',
        'model.backbone.type=Nothing',
    ]  # ends after the look
    start = lambda *more: train('volo_demo', data, tmp_path / 'work', *more, *options)  # noqa: E731
    for expected in (1, 1):
        assert start() == 2 and 'Nothing' in capsys.readouterr().err
        assert len(looks) == expected
    label = files(data)[3][1]
    write_value(label, 254)
    for expected in (2, 3):  # faults are not kept
        assert start() == 2 and 'holds 254' in capsys.readouterr().err
        assert len(looks) == expected
    assert start('--no-check') == 2 and 'Nothing' in capsys.readouterr().err
    assert len(looks) == 3
    write_value(label, 0)
    assert checked(data, capsys)[0] == 0 and len(looks) == 4
    assert start() == 2 and len(looks) == 4  # `mmseg-volo check` has looked
    for kept in (tmp_path / 'torch').rglob('checked/*.json'):
        kept.write_text('{')  # cut off
    assert start() == 2 and len(looks) == 5


def test_wrapped_data_sets_are_checked(data: Path) -> None:
    plain = load_config('volo_demo', {'data_root': str(data)})
    part, other = plain.train_dataloader.dataset, plain.val_dataloader.dataset
    repeated = ConfigDict(type='RepeatDataset', times=3, dataset=part)
    joined = ConfigDict(type='ConcatDataset', datasets=[repeated, other])
    assert check.check_files(joined, 'x') == 14
    files(data, 'val')[0][0].write_bytes(b'')
    with pytest.raises(UsageError, match='is not a readable'):
        check.check_files(joined, 'x')


@pytest.mark.parametrize('command', ['train', 'test', 'check'])
@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head'])
def test_a_head_of_other_classes_is_refused(command: str, head: str, data: Path, capsys: pytest.CaptureFixture) -> None:
    config = write_config(Path(), f'model = dict({head}=dict(num_classes=150))\n')
    Path('some.pth').touch()
    arguments = [command, str(config), *(['some.pth'] if command == 'test' else [])]
    assert main([*arguments, '--cfg-options', f'data_root={data}']) == 2
    error = capsys.readouterr().err
    assert re.search(rf'model.{head} has num_classes=150, but the data set of \w+ has 10 classes', error)
    assert len(error.splitlines()) == 1


def test_16_bits_and_colours_are_no_label_in_a_test_either(data: Path, capsys: pytest.CaptureFixture) -> None:
    Path('some.pth').touch()
    label = files(data, 'val')[0][1]
    write_16_bits(label, 259)
    arguments = ['test', 'volo_demo', 'some.pth', '--cfg-options', f'data_root={data}']
    assert main(arguments) == 2
    assert re.search(rf'{label.name} holds values of \d+ to 259', capsys.readouterr().err)


def test_only_the_first_process_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
    for launcher, name in names.items():
        for rank in '01':
            monkeypatch.setenv(name, rank)
            assert is_first(launcher) == (rank == '0')
    assert is_first('none')
