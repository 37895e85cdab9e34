"""Compare sliding windows with mmseg's EncoderDecoder: time, bookkeeping, memory, masks.

    python benchmarks/sliding_window.py --json sliding_window.json
    python benchmarks/sliding_window.py --large    # only 12000x8000 pixels, 150 classes, through mmseg_volo.predict

Both segmentors have the same weights and go from the uint8 image to the mask, in turns, in one process. The network's
time is that of mmseg's `encode_decode`, whose logits have the window's size; bookkeeping is the remaining time, as a
share of it. Ours enlarges logits later and faster, so its share may be negative; its time outside of backbone, neck and
head, enlarging included, is given as well. Memory is the peak above the level before the call: of the process on CPUs
(Linux's VmHWM), of torch's allocator on GPUs.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import save
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmseg.structures import SegDataSample
from torch import nn
from tqdm import tqdm

import mmseg_volo
from mmseg_volo.config import load_config
from mmseg_volo.models.segmentors import StreamingEncoderDecoder, masks_only

MB = 1 << 20
ABOUT = "Sliding windows against mmseg's EncoderDecoder: time, bookkeeping, memory, masks."
SLIDE = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def segmentors(config: str, classes: int) -> tuple[nn.Module, StreamingEncoderDecoder]:
    """Build mmseg's segmentor and ours, with the network of a shipped config."""
    cfg = load_config(config)
    cfg.model.pop('auxiliary_head', None)
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.decode_head.update(num_classes=classes, loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True))
    cfg.model.test_cfg = SLIDE
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        theirs, ours = (
            revert_sync_batchnorm(MODELS.build({**copy.deepcopy(cfg.model), 'type': each})).to(DEVICE).eval()
            for each in ('EncoderDecoder', 'StreamingEncoderDecoder')
        )
    torch.nn.init.normal_(theirs.decode_head.conv_seg.weight, std=0.1)  # else all classes are nearly equal
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def peak(reset: bool = False) -> int:
    """Return the most bytes in use since the last reset; right after a reset, those in use now."""
    if DEVICE.type == 'cuda':
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        gc.collect()
        ctypes.CDLL('libc.so.6').malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith('VmHWM'))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call, and its seconds."""
    start = time.perf_counter()
    result = work()
    if DEVICE.type == 'cuda':
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result of a call, its seconds, and its peak memory in MB."""
    before = peak(reset=True)
    result, seconds = timed(work)
    return result, seconds, (peak() - before) / MB


def clocked(model: nn.Module, name: str) -> list[float]:
    """Return a list to which each call of a method of the model appends its seconds from now on."""
    seconds: list[float] = []
    call = getattr(model, name)

    def method(*args: Any) -> torch.Tensor:
        result, spent = timed(lambda: call(*args))
        seconds.append(spent)
        return result

    setattr(model, name, method)
    return seconds


def differences(expected: SegDataSample, mask: torch.Tensor, logits: torch.Tensor) -> dict[str, float | int]:
    """Compare masks and logits row by row, so that the comparison needs less memory than the predictions."""
    largest, differing, untied = 0.0, 0, 0
    for row in range(mask.shape[1]):
        theirs = expected.seg_logits.data[:, row]
        other = expected.pred_sem_seg.data[0, row] != mask[0, row]
        best, second = theirs.topk(2, dim=0).values
        largest = max(largest, (theirs - logits[:, row]).abs().max().item())
        differing += int(other.sum())
        untied += int((best - second > 2e-5)[other].sum())
    return {'largest difference of logits': largest, 'masks differ (pixels)': differing, 'of these no ties': untied}


def compare(config: str, size: Sequence[int], classes: int, runs: int) -> dict[str, Any]:
    """Measure one row of the table."""
    theirs, ours = segmentors(config, classes)
    network, own_network = clocked(theirs, 'encode_decode'), clocked(ours, '_logits')
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *size), np.uint8))

    def step(model: nn.Module, picture: torch.Tensor = image) -> SegDataSample:
        meta = dict(ori_shape=tuple(picture.shape[1:]), img_shape=tuple(picture.shape[1:]))
        return model.test_step(dict(inputs=[picture], data_samples=[SegDataSample(metainfo=meta)]))[0]

    times: dict[str, list[float]] = dict(mmseg=[], network=[], ours=[], outside=[])
    step(theirs, image[:, :512, :512]), step(ours, image[:, :512, :512])
    for _ in range(runs):
        network.clear()
        expected, seconds, memory_theirs = measured(lambda: step(theirs))
        times['mmseg'].append(seconds)
        times['network'].append(sum(network))
        if len(times['mmseg']) < runs:
            del expected  # only the last one is compared; it exists before our memory is measured
        own_network.clear()
        with masks_only(ours):
            predicted, seconds, memory_mask = measured(lambda: step(ours))
        times['ours'].append(seconds)
        times['outside'].append(seconds - sum(own_network))
    kept, _, memory_logits = measured(lambda: step(ours))
    mmseg, network_time, total, outside = (statistics.median(values) for values in times.values())
    return {
        'image': f'{size[0]}x{size[1]}',
        'classes': classes,
        'mmseg (s)': mmseg,
        'network (s)': network_time,
        'ours (s)': total,
        'times faster': mmseg / total,
        'bookkeeping mmseg (%)': 100 * (mmseg / network_time - 1),
        'bookkeeping ours (%)': 100 * (total / network_time - 1),
        'outside of our network (%)': 100 * outside / (total - outside),
        'mmseg (MB)': memory_theirs,
        'ours with logits (MB)': memory_logits,
        'ours (MB)': memory_mask,
        'memory with logits': memory_logits / memory_theirs,
        'memory': memory_mask / memory_theirs,
        **differences(expected, predicted.pred_sem_seg.data, kept.seg_logits.data),
    }


def large() -> dict[str, Any]:
    """Predict an image of 12000x8000 pixels and 150 classes, with a network of negligible cost."""
    cfg = load_config('volo_demo')
    dims = [16, 32, 32, 32]
    cfg.model.backbone.arch = dict(depths=[1, 1, 1, 1], dims=dims, num_heads=[1, 2, 2, 2], stem_dim=8)
    cfg.model.neck.in_channels = dims
    cfg.model.decode_head.update(in_channels=dims, channels=16, num_classes=150)
    cfg.model.test_cfg = SLIDE
    model = mmseg_volo.load(cfg)
    model.dataset_meta = dict(classes=[str(i) for i in range(150)], palette=[[0, 0, 0]] * 150)
    image = np.random.default_rng(0).integers(0, 256, (8000, 12000, 3), np.uint8)
    mmseg_volo.predict(model, image[:512, :512])
    prediction, seconds, memory = measured(lambda: mmseg_volo.predict(model, image))
    return {
        'image': '8000x12000 (height x width)',
        'classes': 150,
        'seconds': seconds,
        'ours (MB)': memory,
        'with the image (MB)': memory + image.nbytes / MB,
        'classes found': len(np.unique(prediction.mask)),
    }


def report(rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    """Print the table, a column for each case, and write it to the `--json` file."""
    print(f'network of {args.config}, windows 512, stride 341, {DEVICE}, {args.threads} thread(s), {args.runs} run(s)')
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f'{name:<30}', *(f'{v:>14.4g}' if isinstance(v, float) else f'{v:>14}' for v in values))
    save(f'{ABOUT} Network of {args.config}', rows, args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default='volo_demo', help='name of a shipped config, for its network')
    parser.add_argument('--sizes', nargs='+', default=['1024x2048', '2048x2048'], help='HEIGHTxWIDTH of the images')
    parser.add_argument('--classes', nargs='+', type=int, default=[19, 150])
    parser.add_argument('--runs', type=int, default=5, help='of each side, in turns')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--large', action='store_true', help='only an image of 12000x8000 pixels')
    parser.add_argument('--json', type=Path, help='write the table to this file')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        if args.large:
            args.runs, rows = 1, [large()]
        else:
            sizes = [tuple(int(n) for n in size.split('x')) for size in args.sizes]
            cases = tqdm([(size, classes) for classes in args.classes for size in sizes], unit='case')
            rows = [compare(args.config, *case, args.runs) for case in cases]
    report(rows, args)
    if any(row.get('of these no ties') or row.get('largest difference of logits', 0) > 1e-5 for row in rows):
        raise SystemExit('the two sides differ')


if __name__ == '__main__':
    main()
