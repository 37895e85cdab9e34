"""Decoded copies: training gets the same pixels from them, never those of a file that has changed since."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from mmseg.datasets import BaseSegDataset

from mmseg_volo.cli.prepare import main
from mmseg_volo.config import load_config
from mmseg_volo.datasets import cache, transforms
from mmseg_volo.datasets.cache import FOLDER, mapped
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.io import image as pictures

Usage = namedtuple('Usage', 'total used free')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return scenes.generate(tmp_path / 'scenes', 3, 1, 40, 64)


def copies(root: Path) -> list[Path]:
    return sorted((root / FOLDER).rglob('*.npy'))


def train_set(root: Path) -> BaseSegDataset:
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(load_config('volo_demo', {'data_root': str(root)}).train_dataloader.dataset)


def crops(root: Path) -> list[np.ndarray]:
    np.random.seed(0)
    items = [*train_set(root)]
    return [part.numpy() for item in items for part in (item['inputs'], item['data_samples'].gt_sem_seg.data)]


def test_training_gets_the_same_pixels_and_decodes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = crops(root)
    assert main(['cityscapes', str(root), '--cache']) == 0
    out = capsys.readouterr().out
    assert '6 files take 0.0 GB, 0 are there' in out and '6 files decoded' in out
    found = copies(root)
    assert len(found) == 6 and all('/train/' in path.as_posix() for path in found)
    for name in ('read_image', 'read_label'):
        monkeypatch.setattr(transforms, name, Mock(side_effect=AssertionError('decoded')))
    after = crops(root)
    assert len(after) == 6 and all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_copies_are_the_decoded_files(root: Path) -> None:
    assert main(['cityscapes', str(root), '--cache']) == 0
    for path in root.glob('leftImg8bit/train/*/*.png'):
        image = mapped(path)
        assert isinstance(image, np.memmap) and not image.flags.writeable
        assert np.array_equal(image[..., ::-1], cv2.imread(str(path)))
    for path in root.glob('gtFine/train/*/*.png'):
        assert np.array_equal(mapped(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    assert mapped(root.parent / 'elsewhere.png') is None  # no cache there, nothing to warn of


def test_a_changed_file_is_read_anew(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['cityscapes', str(root), '--cache']) == 0
    image = sorted(root.glob('leftImg8bit/train/*/*.png'))[1]
    whole, old = cv2.imread(str(image)), copies(root)
    cv2.imwrite(str(image), 255 - whole)
    with pytest.warns(UserWarning, match='lacks copies of .*have changed since.*complete it with .* --cache'):
        assert mapped(image) is None
    with pytest.warns(UserWarning, match='lacks copies of files'):
        changed = crops(root)
    capsys.readouterr()
    assert main(['cityscapes', str(root), '--cache']) == 0
    assert '5 are there' in (out := capsys.readouterr().out) and '1 files decoded' in out
    assert len(copies(root)) == 6 and len({*old} & {*copies(root)}) == 5  # the old copy is gone
    assert np.array_equal(mapped(image)[..., ::-1], 255 - whole)
    assert all(np.array_equal(a, b) for a, b in zip(changed, crops(root), strict=True))


def test_the_same_size_and_another_time_is_a_change(root: Path) -> None:
    assert main(['cityscapes', str(root), '--cache']) == 0
    image = next(root.glob('leftImg8bit/train/*/*.png'))
    assert mapped(image) is not None
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 1000))
    with pytest.warns(UserWarning, match='changed since'):
        assert mapped(image) is None


def test_it_goes_on_where_it_was_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, done = os.replace, []

    def interrupted(*args: str) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(replace(*args))

    monkeypatch.setattr(os, 'replace', interrupted)
    assert main(['cityscapes', str(root), '--cache', '--workers', '1']) == 130
    monkeypatch.undo()
    kept = copies(root)
    assert 1 <= len(kept) <= 2
    cut, hidden = kept[0], kept[0].with_name('.left.npy')
    cut.write_bytes(cut.read_bytes()[:-5])  # as a power failure leaves it
    hidden.touch()
    times = {path: path.stat().st_mtime_ns for path in kept[1:]}
    assert main(['cityscapes', str(root), '--cache']) == 0
    assert len(copies(root)) == 6 and not hidden.exists()
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    image = next(root.glob('leftImg8bit/train/*/*.png'))
    assert np.array_equal(mapped(image)[..., ::-1], cv2.imread(str(image)))


def test_a_small_or_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: Usage(1 << 40, 0, 1000))
    assert main(['cityscapes', str(root), '--cache']) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert '6 files take 0.0 GB' in error and 'are free: make room, or omit --cache' in error
    assert not copies(root)
    monkeypatch.undo()
    full = Mock(side_effect=OSError(errno.ENOSPC, 'No space left on device'))
    monkeypatch.setattr(cache.np, 'save', full)
    assert main(['cityscapes', str(root), '--cache']) == 2
    assert 'cannot be written (No space left on device), 0 of 6 files are' in capsys.readouterr().err
    assert not copies(root)


@pytest.mark.parametrize('decoder', ['kornia-rs', 'none'])
def test_every_decoder_reads_the_same(decoder: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if decoder == 'none':
        monkeypatch.setattr(pictures, 'decode_png', None)
    elif pictures.decode_png is None:
        pytest.skip('kornia-rs is not installed')
    image = next(root.glob('leftImg8bit/train/*/*.png'))
    label = next(root.glob('gtFine/train/*/*.png'))
    assert np.array_equal(pictures.read_image(image)[..., ::-1], cv2.imread(str(image)))
    assert np.array_equal(pictures.read_label(label), cv2.imread(str(label), cv2.IMREAD_UNCHANGED))
    plain = pictures._plain_png(image.read_bytes(), 'rgb')
    assert (plain is None) == (decoder == 'none')
    assert pictures._plain_png(label.read_bytes(), 'mono') is not None
