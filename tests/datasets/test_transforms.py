"""Our training pipeline against mmseg's: the same pixels for the same seed, the same statistics for others."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image
from scipy.stats import ks_2samp

from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.datasets.transforms import nearest_index, resized_part
from mmseg_volo.errors import UsageError
from mmseg_volo.io import image as pictures

Item = Callable[[], dict[str, Any]]


def compose(steps: list[dict]) -> Compose:
    with DefaultScope.overwrite_default_scope('mmseg'):
        return Compose(steps)


def pipelines(
    scale: tuple[int, int], ratios: tuple[float, float], crop: tuple[int, int], cat_max_ratio: float = 0.75
) -> tuple[Compose, Compose]:
    """(mmseg's, ours)."""
    cropped = dict(crop_size=crop, cat_max_ratio=cat_max_ratio)
    theirs = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='RandomResize', scale=scale, ratio_range=ratios, keep_ratio=True),
        dict(type='RandomCrop', **cropped),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]
    ours = [
        dict(type='LoadRandomCrop', scale=scale, ratio_range=ratios, **cropped),
        dict(type='ContiguousRandomFlip', prob=0.5),
        dict(type='FastPhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]
    return compose(theirs), compose(ours)


def item_of(image: Path, label: Path, **more: Any) -> Item:
    common = dict(img_path=str(image), seg_map_path=str(label), label_map=None, reduce_zero_label=False)
    return lambda: {**common, 'seg_fields': [], **more}


def assert_same(theirs: Compose, ours: Compose, item: Item, seed: int) -> None:
    found = []
    for pipeline in (theirs, ours):
        np.random.seed(seed)
        packed = pipeline(item())
        found.append((packed['inputs'], packed['data_samples'], np.random.random()))
    (their, their_sample, their_next), (our, our_sample, our_next) = found
    assert our.is_contiguous() and torch.equal(our, their)
    assert torch.equal(our_sample.gt_sem_seg.data, their_sample.gt_sem_seg.data)
    assert our_sample.gt_sem_seg.data.dtype == torch.int64
    assert our_sample.metainfo == their_sample.metainfo
    assert our_next == their_next  # as many draws


@pytest.fixture(scope='module')
def street(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = scenes.generate(tmp_path_factory.mktemp('street') / 'scenes', 1, 0, 130, 251)
    (image,), (label,) = ([*root.rglob(f'*_{kind}.png')] for kind in ('leftImg8bit', 'labelTrainIds'))
    return image, label


@pytest.mark.parametrize('scale', [(251, 130), (200, 60), (400, 300), (97, 64)])
@pytest.mark.parametrize('crop', [(64, 96), (33, 300), (500, 500), (1, 1)])
def test_same_seed_same_pixels(street: tuple[Path, Path], scale: tuple[int, int], crop: tuple[int, int]) -> None:
    theirs, ours = pipelines(scale, (0.5, 2.0), crop)
    for seed in range(6):
        assert_same(theirs, ours, item_of(*street), seed)


@pytest.mark.parametrize('ratio', [0.5, 0.996, 1.0, 1.004, 1.5, 2.0])
def test_same_pixels_at_special_ratios(street: tuple[Path, Path], ratio: float) -> None:
    """Half and twice the size, the size itself, and a hair beside it have ways of their own in OpenCV."""
    theirs, ours = pipelines((251, 130), (ratio, ratio), (40, 50), cat_max_ratio=0.5)
    for seed in range(8):
        assert_same(theirs, ours, item_of(*street), seed)


def test_same_pixels_of_camvid(camvid: Path) -> None:
    theirs, ours = pipelines((480, 360), (0.5, 2.0), (256, 256))
    for seed, image in enumerate(sorted((camvid / 'images/train').iterdir())[:40:8]):
        assert_same(theirs, ours, item_of(image, camvid / f'labels/train/{image.stem}.png', label_map={11: 255}), seed)


@pytest.mark.parametrize('reduce', [False, True])
@pytest.mark.parametrize('mapping', [None, {0: 255, 1: 0, 2: 1, 7: 0, 254: 3}])
@pytest.mark.parametrize('mode', ['L', 'P'])
def test_same_labels(reduce: bool, mapping: dict[int, int] | None, mode: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    label = Image.fromarray(values).convert('L')
    if mode == 'P':
        label = Image.fromarray(values)
        label.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    label.save(tmp_path / 'label.png')
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / 'image.png')
    theirs, ours = pipelines((30, 20), (0.5, 2.0), (9, 9))
    item = item_of(tmp_path / 'image.png', tmp_path / 'label.png', reduce_zero_label=reduce, label_map=mapping)
    for seed in range(3):
        assert_same(theirs, ours, item, seed)


@pytest.mark.parametrize('decoder', ['kornia-rs', 'none'])
@pytest.mark.parametrize('mode', ['RGB', 'L', 'P', 'RGBA', 'LA', '1', 'I;16', 'jpg'])
def test_same_pixels_of_every_kind_of_picture(
    mode: str, decoder: str, street: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == 'none':
        monkeypatch.setattr(pictures, 'decode_png', None)
    elif pictures.decode_png is None:
        pytest.skip('kornia-rs is not installed')
    image = Image.open(street[0])
    path = tmp_path / ('image.jpg' if mode == 'jpg' else 'image.png')
    if mode == 'I;16':
        Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 200).save(path)
    else:
        (image if mode == 'jpg' else image.convert(mode)).save(path)
    theirs, ours = pipelines((251, 130), (0.5, 2.0), (64, 96))
    assert_same(theirs, ours, item_of(path, street[1]), 3)


def test_a_part_of_the_resized_image_is_exactly_that() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    for _ in range(300):
        width, height = rng.integers(20, 200, 2).tolist()
        top, left = int(rng.integers(height)), int(rng.integers(width))
        bottom, right = int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1
        whole = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        part = resized_part(image, (width, height), (top, bottom, left, right))
        assert np.array_equal(part, whole[top:bottom, left:right]), (width, height)
        label = np.ascontiguousarray(image[..., 0])
        rows, columns = nearest_index(61, height), nearest_index(83, width)
        resized = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
        assert np.array_equal(label[rows][:, columns], resized)


def test_2000_draws_have_the_statistics_of_mmseg(tmp_path: Path) -> None:
    """Other seeds on both sides, so nothing is equal but the distributions: sizes, places, flips and colours.

    The image encodes places: red rises downwards, green to the right; blue is constant.
    """
    rows, columns = np.mgrid[:100, :200]
    image = np.stack([np.full_like(rows, 90), columns + 20, 2 * rows + 20], axis=2).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    cv2.imwrite(str(tmp_path / 'label.png'), (rows // 30 * 4 + columns // 50).astype(np.uint8) // 3)
    item, found = item_of(tmp_path / 'image.png', tmp_path / 'label.png'), []
    for seed, pipeline in enumerate(pipelines((200, 100), (0.5, 2.0), (40, 60), cat_max_ratio=0.75)):
        np.random.seed(seed)
        rows_found = []
        for _ in range(2000):
            packed = pipeline(item())
            picture, sample = packed['inputs'].numpy().astype(int), packed['data_samples']
            classes = np.bincount(sample.gt_sem_seg.data.numpy().ravel(), minlength=6)
            rows_found.append(
                [sample.scale_factor[0], sample.flip, *picture[:, 0, 0], *picture[:, -1, -1]]
                + [picture[1, 0, 0] - picture[1, 0, -1], *classes[:6], picture.mean(), picture.std()]
            )
        found.append(np.array(rows_found, float))
    for theirs, ours in zip(found[0].T, found[1].T, strict=True):
        assert len({*ours.tolist()}) > 1 and ks_2samp(theirs, ours).pvalue > 1e-4
    assert not np.array_equal(*found)


def test_one_class_everywhere_is_taken_after_ten_tries(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((50, 60, 3), np.uint8))
    for value in (3, 255):
        cv2.imwrite(str(tmp_path / 'label.png'), np.full((50, 60), value, np.uint8))
        theirs, ours = pipelines((60, 50), (0.5, 2.0), (9, 9))
        assert_same(theirs, ours, item_of(tmp_path / 'image.png', tmp_path / 'label.png'), 0)


def test_bad_files_are_named(street: tuple[Path, Path], tmp_path: Path) -> None:
    image, label = street
    ours = pipelines((251, 130), (0.5, 2.0), (64, 96))[1]
    broken = tmp_path / 'broken.png'
    values = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
    cases = {
        r'broken.png \(0 bytes\) is not a readable picture': (b'', b''),
        r'broken.png \(30 bytes\) is not a readable picture': (image.read_bytes()[:30], label.read_bytes()[:30]),
    }
    for message, contents in cases.items():
        for which, content in enumerate(contents):
            broken.write_bytes(content)
            files = [image, label]
            files[which] = broken
            with pytest.raises(UsageError, match=message):
                ours(item_of(*files)())
    for message, other in {
        r'broken.png is 125x130, its image .*leftImg8bit.png 251x130': values[:, :125],
        r'broken.png has the shape \(130, 251, 3\), expected class indices': np.dstack([values] * 3),
        r'broken.png holds values of 259 to 259, expected 0 to 255': np.full((130, 251), 259, np.uint16),
    }.items():
        cv2.imwrite(str(broken), other)
        with pytest.raises(UsageError, match=message):
            ours(item_of(image, broken)())
    with pytest.raises(FileNotFoundError, match='nowhere.png'):
        ours(item_of(image, tmp_path / 'nowhere.png')())


@pytest.mark.parametrize('name', ['volo_d1_cityscapes', 'volo_d1_ade20k', 'volo_demo'])
def test_shipped_pipelines_draw_as_mmseg(name: str, street: tuple[Path, Path]) -> None:
    """The published recipes in mmseg's own transforms, beside what the configs hold."""
    steps = load_config(name).train_pipeline
    assert steps[0].type == 'LoadRandomCrop'
    first, *rest = steps
    theirs = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='RandomResize', scale=first.scale, ratio_range=first.ratio_range, keep_ratio=True),
        dict(type='RandomCrop', crop_size=first.crop_size, cat_max_ratio=first.cat_max_ratio),
        *[{**step, 'type': re.sub('^(Table|Contiguous)', '', step.type)} for step in rest],
    ]
    assert_same(compose(theirs), compose(steps), item_of(*street, reduce_zero_label='ade' in name), 5)
