"""Measure how cost grows with the side of an image and with the number of processes: `python benchmarks/growth.py`.

Prediction: square images of 19 classes through windows of 512, stride 341, with a network so small that the cost
around it dominates; mmseg's segmentor up to the side where its maps would exceed the memory; sides above 2048 are timed
once. Training: the demo's network in 1, 2, 4, ... processes, one per core or GPU, one thread each, with the same number
of images each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from measure import arguments, medians, report
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmseg.structures import SegDataSample
from sliding_window import DEVICE, MB, SLIDE, peak
from torch import nn

from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.models.segmentors import masks_only

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator  # noqa: E402

ROOT = Path(__file__).parents[1]
SIDES = (512, 1024, 2048, 4096, 8192)
MANY_RUNS = 2048  # and below; larger sides are timed once
LARGEST_OF_MMSEG = 2048  # each of its windows pads and adds maps of the whole image: minutes at 4096, 20 GB at 8192
CLASSES, ITERATIONS, WARMUP = 19, 12, 4


def tiny(name: str) -> nn.Module:
    """Build a segmentor of mmseg or of ours around the same small network."""
    cfg = load_config('volo_demo')
    dims = [16, 32, 32, 32]
    cfg.model.backbone.arch = dict(depths=[1, 1, 1, 1], dims=dims, num_heads=[1, 2, 2, 2], stem_dim=8)
    cfg.model.neck.in_channels = dims
    cfg.model.decode_head.update(in_channels=dims, channels=16, num_classes=CLASSES)
    cfg.model.update(type=name, test_cfg=SLIDE)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return revert_sync_batchnorm(MODELS.build(cfg.model)).to(DEVICE).eval()


def prediction(side: int, models: Mapping[str, nn.Module], runs: int) -> dict[str, Any]:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, side, side), np.uint8))

    def step(model: nn.Module) -> None:
        sample = SegDataSample(metainfo=dict(ori_shape=(side, side), img_shape=(side, side)))
        with torch.inference_mode(), masks_only(model):
            model.test_step(dict(inputs=[image], data_samples=[sample]))
        if DEVICE.type == 'cuda':
            torch.cuda.synchronize()

    row: dict[str, Any] = {'side': side, 'processes': 1}
    for name, model in models.items():
        if name == 'mmseg' and side > LARGEST_OF_MMSEG:
            row |= {'mmseg s': None, 'mmseg MB': None}
            continue
        before = peak(reset=True)
        start = time.perf_counter()
        step(model)
        seconds, memory = time.perf_counter() - start, (peak() - before) / MB
        if side <= MANY_RUNS:
            seconds = medians({name: lambda run, model=model: step(model)}, runs)[name]
        row |= {f'{name} s': seconds, f'{name} MB': memory}
    return row


def training(processes: int, data: Path) -> dict[str, Any]:
    """Train the demo's network, and read images per second from its log."""
    with tempfile.TemporaryDirectory() as work:
        options = [f'data_root={data}', f'train_cfg.max_iters={ITERATIONS}', f'train_cfg.val_interval={10**6}']
        options += ['default_hooks.logger.interval=1', 'train_dataloader.num_workers=1']
        command = [ROOT / 'tools/dist_train.sh', 'volo_demo', str(processes), '--work-dir', work, '--no-check']
        threads = {**os.environ, 'OMP_NUM_THREADS': '1', 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'}
        subprocess.run([*command, '--cfg-options', *options], check=True, capture_output=True, env=threads, cwd=ROOT)
        log = next(Path(work).glob('*/vis_data/scalars.json')).read_text().splitlines()
    lines = [json.loads(line) for line in log]
    times = sorted(line['time'] for line in lines[WARMUP:] if 'loss' in line)
    seconds = times[len(times) // 2]
    batch = load_config('volo_demo').train_dataloader.batch_size
    return {'processes': processes, 's per iteration': seconds, 'images per s': processes * batch / seconds}


def plot(predictions: Sequence[Mapping[str, Any]], trainings: Sequence[Mapping[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), constrained_layout=True)
    for axis, unit, title in ((axes[0], 's', 'seconds per image'), (axes[1], 'MB', 'peak memory, MB')):
        for name, marker in (('mmseg', 's'), ('ours', 'o')):
            points = [(row['side'], row[f'{name} {unit}']) for row in predictions if row[f'{name} {unit}'] is not None]
            axis.loglog(*zip(*points, strict=True), marker=marker, label=name)
        axis.set(title=f'Prediction: {title}', xlabel='side of the image, pixels', xticks=SIDES, xticklabels=SIDES)
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter('{x:g}')
        axis.legend()
    counts = [row['processes'] for row in trainings]
    axes[2].plot(counts, [row['images per s'] for row in trainings], marker='o', label='measured')
    axes[2].plot(counts, [trainings[0]['images per s'] * n for n in counts], '--', color='grey', label='proportional')
    axes[2].set(title='Training: images per second', xlabel='processes', xticks=counts, ylim=(0, None))
    axes[2].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    options = {
        '--plot': dict(type=Path, default=ROOT / 'benchmarks/growth.png', help='file for the picture'),
        '--sides': dict(type=int, nargs='+', default=SIDES),
    }
    args = arguments(__doc__.splitlines()[0], options)
    torch.manual_seed(0)
    models = {'mmseg': tiny('EncoderDecoder'), 'ours': tiny('StreamingEncoderDecoder')}
    predictions = [prediction(side, models, args.runs) for side in args.sides]
    most, counts = torch.cuda.device_count() or os.cpu_count() or 1, [1]
    while 2 * counts[-1] <= most:
        counts.append(2 * counts[-1])
    with tempfile.TemporaryDirectory() as folder:
        data = scenes.generate(Path(folder) / 'scenes', 64, 4, 128, 256)
        trainings = [training(count, data) for count in counts]
    plot(predictions, trainings, args.plot)
    keys = dict.fromkeys(key for row in (*predictions, *trainings) for key in row)
    rows = [{key: row.get(key) for key in keys} for row in (*predictions, *trainings)]
    report('Growth: prediction with the side, training with the processes', rows, args)


if __name__ == '__main__':
    main()
