"""Measure iterations per second and memory of the training step of shipped configs, on random data.

    python benchmarks/train_step.py [--configs volo_d4_cityscapes volo_d5_ade20k] [--json FILE]

Crop, images per GPU, optimiser and precision are the config's, weights are random. There is one process, so without
the cost of communication. The last columns are this step's FLOP/s, with FLOPs as counted by `tools/recipe_cost.py`,
which give the share of a GPU's peak, and the ratio to its estimate of the memory. Memory is the peak of torch's
allocator on a GPU; on a CPU it is that of the whole process since its start, so measure one config at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time the step of one config.

    Returns:
        Seconds per iteration (median), peak bytes, and `cost.estimate` of the same step.
    """
    import torch
    from mmengine.model import revert_sync_batchnorm
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS
    from tqdm import tqdm

    from mmseg_volo.config import load_config
    from mmseg_volo.engine.optim.precision import precision_of, set_precision
    from mmseg_volo.zoo import cost

    cfg = load_config(name)
    cfg.crop_size = tuple(args.crop or cfg.crop_size)
    cfg.model.data_preprocessor.size = cfg.crop_size
    cfg.train_dataloader.batch_size = args.batch or cfg.train_dataloader.batch_size
    cfg.auto_scale_lr.base_batch_size = cfg.train_dataloader.batch_size  # one process
    estimate = cost.estimate(cfg)
    set_precision(cfg.optim_wrapper, args.amp)
    cfg.model.backbone.init_cfg = None
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).to(device).train()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    data = random_batch(cfg.train_dataloader.batch_size, cfg.crop_size, cfg.num_classes)
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in tqdm(range(args.warmup + args.iters), desc=cfg.filename, unit='iteration'):
        start = time.perf_counter()
        model.train_step(data, optim_wrapper)
        if device == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    on_cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return dict(
        batch=cfg.train_dataloader.batch_size,
        crop=list(cfg.crop_size),
        precision=precision_of(optim_wrapper),
        seconds=statistics.median(times[args.warmup :]),
        peak_memory=torch.cuda.max_memory_allocated() if device == 'cuda' else on_cpu,
        flops=estimate.flops,
        estimated_memory=estimate.memory,
    )


def random_batch(images: int, crop: Sequence[int], classes: int) -> dict[str, list]:
    """Make a batch as a data loader returns it, with noise for images and labels."""
    import torch
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    torch.manual_seed(0)
    inputs = [torch.randint(256, (3, *crop), dtype=torch.uint8) for _ in range(images)]
    labels = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(classes, (1, *crop)))) for _ in range(images)]
    return dict(inputs=inputs, data_samples=labels)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Format the results as a Markdown table."""
    lines = [
        '| config | images x crop | precision | iterations/s | TFLOP/s | peak memory (GB) | of that estimated |',
        '|' + '---|' * 7,
    ]
    for name, r in results.items():
        size = f'{r["batch"]} x {r["crop"][0]}x{r["crop"][1]}'
        cells = [name, size, r['precision'], f'{1 / r["seconds"]:.3g}', f'{r["flops"] / r["seconds"] / 1e12:.3g}']
        cells += [f'{r["peak_memory"] / 1e9:.1f}', f'{r["peak_memory"] / r["estimated_memory"]:.2f}x']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--configs', nargs='+', default=['volo_d4_cityscapes', 'volo_d5_ade20k'])
    parser.add_argument('--iters', type=int, default=20, help='that are timed')
    parser.add_argument('--warmup', type=int, default=5, help='iterations before')
    parser.add_argument('--batch', type=int, help="images; the config's per GPU if not given")
    parser.add_argument('--crop', type=int, nargs=2, metavar=('H', 'W'), help="the config's if not given")
    parser.add_argument('--amp', action=argparse.BooleanOptionalAction, help='as in tools/train.py')
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='the GPU where there is one')
    parser.add_argument('--json', type=Path, help='write the results here too')
    args = parser.parse_args(argv)
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    import torch

    from mmseg_volo.config import find_config
    from mmseg_volo.errors import UsageError

    results = {}
    try:
        if args.device == 'cuda' and not torch.cuda.is_available():
            raise UsageError('--device cuda: torch sees no GPU')
        if min(args.iters, args.batch or 1, *(args.crop or [1])) < 1 or args.warmup < 0:
            raise UsageError('--iters, --batch and --crop must be positive')
        for name in [find_config(name).stem for name in args.configs]:
            results[name] = measure(name, args)
            print(f'\n{table(results)}\n', flush=True)
    except (UsageError, ValueError) as error:  # e.g. BatchNorm refuses UPerNet's 1x1 map of a single image
        print(f'error: {error}', file=sys.stderr)
        return 2
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {torch.get_num_threads()} threads'
    print(f'{device}, torch {torch.__version__}, median of {args.iters} iterations')
    if args.json:
        args.json.write_text(json.dumps(dict(results=results, device=device, torch=torch.__version__), indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
