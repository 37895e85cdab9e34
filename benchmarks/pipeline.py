"""Compare the Cityscapes training pipeline with mmseg's in images per second: `python benchmarks/pipeline.py`.

One thread, 1024x2048 to crops of 512x1024: scale 0.5 to 2, category ratio 0.75, flip, photometric distortion. The
images are our scenes, blurred and with noise, which makes their PNG files as big as Cityscapes' (2.3 MB), written by
Pillow (adaptive filters, zlib level 6). Each run takes all images, in the same order and with the same seed on all
sides: the pixels must be the same. The files are in the system's cache. kornia-rs decodes PNG files on our side if it
is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measure import arguments, medians, report
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image

import mmseg_volo.register_all  # noqa: F401
from mmseg_volo.datasets import cache
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.io.image import read_image, read_label

IMAGES, BLUR, NOISE = 8, 2.0, 0.7  # standard deviations: of the blur in pixels, of the noise in grey levels
CROP = dict(crop_size=(512, 1024), cat_max_ratio=0.75)
RESIZE = dict(scale=(2048, 1024), ratio_range=(0.5, 2.0))
MMSEG = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', **RESIZE, keep_ratio=True),
    dict(type='RandomCrop', **CROP),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]


def ours(use_cache: bool) -> list[dict]:
    return [
        dict(type='LoadRandomCrop', **RESIZE, **CROP, use_cache=use_cache),
        dict(type='ContiguousRandomFlip', prob=0.5),
        dict(type='FastPhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]


def data(root: Path) -> list[tuple[Path, Path]]:
    """Draw the images and labels."""
    scenes.generate(root / 'scenes', IMAGES, 0, 1024, 2048)
    images = sorted((root / 'scenes').rglob('*_leftImg8bit.png'))
    labels = sorted((root / 'scenes').rglob('*_labelTrainIds.png'))
    rng = np.random.default_rng(0)
    for image, label in zip(images, labels, strict=True):
        smooth = cv2.GaussianBlur(cv2.imread(str(image)), (0, 0), BLUR)[..., ::-1]
        noisy = np.clip(smooth + rng.normal(0, NOISE, smooth.shape), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(image)
        Image.fromarray(cv2.imread(str(label), cv2.IMREAD_UNCHANGED)).save(label)
    sizes = [np.mean([path.stat().st_size for path in paths]) / 1e6 for paths in (images, labels)]
    print(f'{IMAGES} images of 1024x2048, PNG files of {sizes[0]:.2f} MB, labels {sizes[1]:.3f} MB')
    return list(zip(images, labels, strict=True))


def epoch(pipeline: Compose, files: Sequence[tuple[Path, Path]]) -> Callable[[int], list[dict]]:
    """Return a function that loads all images once, with draws that depend on the run only."""

    def work(run: int) -> list[dict]:
        np.random.seed(run)
        items = [dict(img_path=str(i), seg_map_path=str(s), label_map=None, reduce_zero_label=False) for i, s in files]
        return [pipeline({**item, 'seg_fields': []}) for item in items]

    return work


def equal(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> bool:
    return all(
        torch.equal(a['inputs'], b['inputs'])
        and torch.equal(a['data_samples'].gt_sem_seg.data, b['data_samples'].gt_sem_seg.data)
        for a, b in zip(first, second, strict=True)
    )


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = data(root)
        readers = {path: read for pair in files for path, read in zip(pair, (read_image, read_label), strict=True)}
        cache.fill(root, readers, len(files) * 1024 * 2048 * 4, 1)
        with DefaultScope.overwrite_default_scope('mmseg'):
            steps = {'mmseg, PNG': MMSEG, 'ours, PNG': ours(False), 'ours, cache': ours(True)}
            sides = {name: epoch(Compose(pipeline), files) for name, pipeline in steps.items()}
        medians_by_side = medians(sides, args.runs)
        items = [work(1) for work in sides.values()]
    rows = [
        {
            'pipeline': name,
            'ms per image': 1e3 * seconds / IMAGES,
            'images/s': IMAGES / seconds,
            'times faster': medians_by_side['mmseg, PNG'] / seconds,
            'same pixels': equal(items[0], items[index]),
        }
        for index, (name, seconds) in enumerate(medians_by_side.items())
    ]
    report('Cityscapes training pipeline', rows, args)
    if not all(row['same pixels'] for row in rows):
        raise SystemExit('the sides differ')


if __name__ == '__main__':
    main()
