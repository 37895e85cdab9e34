"""Measure mIoU on CamVid from random weights: our backbones and MMSegmentation's under one recipe.

    python benchmarks/camvid_from_scratch.py --data PATH_TO_CAMVID [--models volo_d1 swin_t] [--json FILE]

The same for all: UPerNet of 512 channels and an auxiliary head, AdamW at 5e-4 with weight decay 0.05 (none on norms,
biases and position tables), linear warm-up and decay, gradients clipped at 1, drop path 0.1 where a backbone has it,
whole frames scaled by 0.5 to 2 and cropped, flips, photometric distortion, one seed. The recipe is ours and tuned for
none of them. Scores are those of the last iteration on the 233 test frames, one whole 480x360 frame at a time. VOLO and
T2T-ViT have a neck of one convolution per map behind norms, where their shipped configs have LV-ViT's. ConvNeXt is
mmpretrain's, as in MMSegmentation's own configs, or timm's where that is not installed.

Finished models in `--work-dir` are not trained again, and stopped ones are resumed. `--iters 2 --crop 64 64 --batch 2
--images 2 --workers 0` tries everything on a CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CLASSES = 11
FRAME = (480, 360)  # width, height


class Entry(NamedTuple):
    """Hold a backbone and the channels and strides of its maps."""

    title: str
    backbone: dict[str, Any]
    dims: list[int]
    strides: list[int] | None = None  # if given, a neck rescales the maps to 4, 8, 16, 32


def entries() -> dict[str, Entry]:
    """List the backbones to compare, ours first."""
    four, wide = [64, 128, 320, 512], [96, 192, 384, 768]
    drop = dict(drop_path_rate=0.1)
    norm = dict(type='SyncBN', requires_grad=True)
    resnet = dict(type='ResNetV1c', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), norm_cfg=norm)
    swin = dict(type='SwinTransformer', embed_dims=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7)
    mit = dict(type='MixVisionTransformer', embed_dims=64, num_layers=[3, 4, 6, 3], num_heads=[1, 2, 5, 8])
    theirs, convnext = convnext_tiny()
    return {
        'caformer_s18': Entry('CAFormer-S18', dict(type='CAFormer', arch='s18', **drop), four),
        'convformer_s18': Entry('ConvFormer-S18', dict(type='ConvFormer', arch='s18', **drop), four),
        'volo_d1': Entry('VOLO-D1', dict(type='VOLO', arch='d1', **drop), [192, 384, 384, 384], [8, 16, 16, 16]),
        't2t_vit_14': Entry('T2T-ViT-14', dict(type='T2TViT', arch='14', **drop), [64, 64, 384, 384], [4, 8, 16, 16]),
        'coatnet_0': Entry('CoAtNet-0', dict(type='CoAtNet', arch='0', **drop), wide),
        'resnet50': Entry('ResNet-50 (mmseg, V1c)', resnet, [256, 512, 1024, 2048]),
        'swin_t': Entry('Swin-T (mmseg)', dict(**swin, **drop), wide),
        'mit_b2': Entry('MiT-B2 (mmseg)', dict(**mit, **drop), four),
        'convnext_t': Entry(f'ConvNeXt-T ({theirs})', dict(**convnext, **drop), wide),
    }


def convnext_tiny() -> tuple[str, dict[str, Any]]:
    """Return the library that ConvNeXt-T comes from, and its config: MMSegmentation has none of its own."""
    if importlib.util.find_spec('mmpretrain'):
        kind = dict(type='mmpretrain.ConvNeXt', arch='tiny', gap_before_final_norm=False, out_indices=[0, 1, 2, 3])
        return 'mmpretrain', kind
    return 'timm', dict(type='TIMMBackbone', model_name='convnext_tiny', pretrained=False, features_only=True)


def pipelines(crop: Sequence[int]) -> tuple[list[dict], list[dict]]:
    """Build the pipelines of training and test."""
    read = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    augment = [
        dict(type='RandomResize', scale=FRAME, ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='RandomCrop', crop_size=tuple(crop), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
    ]
    pack = [dict(type='PackSegInputs')]
    return read + augment + pack, read + pack


def recipe(name: str, entry: Entry, args: argparse.Namespace) -> Any:
    """Build the config of one training from the shipped leaves."""
    from mmengine.config import Config

    from mmseg_volo.config import CONFIGS
    from mmseg_volo.engine.optim.precision import set_precision

    leaves = ('models/upernet', 'datasets/camvid', 'schedules/adamw_80k', 'default_runtime')
    cfg = Config({k: v for leaf in leaves for k, v in Config.fromfile(CONFIGS / f'_base_/{leaf}.py').to_dict().items()})
    model = cfg.model
    model.data_preprocessor.size = tuple(args.crop)
    model.backbone = entry.backbone
    if entry.strides:
        model.neck = dict(type='StridePyramid', in_channels=entry.dims, in_strides=entry.strides)
    model.decode_head.update(in_channels=entry.dims, num_classes=CLASSES)
    model.auxiliary_head.update(in_channels=entry.dims[2], num_classes=CLASSES)
    for head in (model.decode_head, model.auxiliary_head):
        head.loss_decode.avg_non_ignore = True
    cfg.train_dataloader.dataset.pipeline, cfg.val_dataloader.dataset.pipeline = pipelines(args.crop)
    cfg.train_dataloader.batch_size = cfg.auto_scale_lr.base_batch_size = args.batch
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=args.workers, persistent_workers=args.workers > 0)
        loader.dataset.data_root = str(args.data)
        if args.images:
            loader.dataset.indices = args.images
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    cfg.optim_wrapper.optimizer.update(lr=5e-4, weight_decay=0.05)
    cfg.optim_wrapper.clip_grad = dict(max_norm=1.0)
    warmup = min(1500, args.iters // 10)
    cfg.param_scheduler[0].update(end=warmup, start_factor=1 / 60)
    cfg.param_scheduler[1].update(begin=warmup, end=args.iters, eta_min=0.0)
    cfg.param_scheduler = cfg.param_scheduler[warmup == 0 :]
    cfg.train_cfg.update(max_iters=args.iters, val_interval=args.iters)
    cfg.default_hooks.checkpoint.update(
        interval=max(args.iters // 10, min(args.iters, 100)), save_best=None, max_keep_ckpts=1
    )
    set_precision(cfg.optim_wrapper, None)
    folder = args.work_dir / name
    cfg.update(work_dir=str(folder), experiment_name=name, randomness=dict(seed=args.seed))
    cfg.resume = (folder / 'last_checkpoint').is_file()
    cfg.visualizer.name = name
    if entry.backbone['type'].startswith('mmpretrain.'):
        importlib.import_module('mmpretrain.models')
    return cfg


def train(cfg: Any) -> dict[str, Any]:
    """Train and test one model.

    Returns:
        mIoU in percent, parameters, iterations per second (median, data loading included), peak of torch's GPU memory
        in bytes (None on a CPU), precision.
    """
    import torch

    from mmseg_volo.engine.optim.precision import precision_of
    from mmseg_volo.engine.runner import SegRunner

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    runner = SegRunner.from_cfg(cfg)
    runner.train()
    hub = runner.message_hub
    return dict(
        miou=float(hub.get_scalar('val/mIoU').current()),
        parameters=sum(p.numel() for p in runner.model.parameters()),
        iterations_per_second=float(1 / np.median(hub.get_scalar('train/time').data[0])),
        peak_memory=torch.cuda.max_memory_allocated() if on_gpu else None,
        precision=precision_of(runner.optim_wrapper),
    )


def run(name: str, entry: Entry, args: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a model, from its folder if it is complete; a failure is recorded in the result."""
    from mmseg_volo.errors import UsageError

    settings = dict(iters=args.iters, crop=list(args.crop), batch=args.batch, seed=args.seed, images=args.images)
    settings |= dict(model=entry.title, device=device())
    record = args.work_dir / name / 'result.json'
    if record.is_file():
        saved = json.loads(record.read_text())
        if saved['settings'] != settings:
            raise UsageError(
                f'{record} belongs to {saved["settings"]}, not to {settings}: give another --work-dir, or remove it'
            )
        if saved['result']:
            return saved['result']
    record.parent.mkdir(parents=True, exist_ok=True)
    save(record, dict(settings=settings, result=None))
    try:
        result = train(recipe(name, entry, args))
    except (RuntimeError, ValueError, AssertionError, KeyError, TypeError, OSError) as error:
        return dict(failed=f'{type(error).__name__}: {" ".join(str(error).split())[:200]}')
    save(record, dict(settings=settings, result=result))
    return result


def save(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    partial = path.with_suffix('.part')
    partial.write_text(json.dumps(content, indent=1))
    os.replace(partial, path)


def device() -> str:
    """Return the name of the device that trains."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'


def table(results: dict[str, dict[str, Any]], known: dict[str, Entry], frames: int) -> str:
    """Format the results as a Markdown table."""
    lines = [
        f'| model | parameters (M) | mIoU on {frames} test frames | iterations/s | peak memory (GB) | |',
        '|' + '---|' * 6,
    ]
    for name, entry in known.items():
        result = results.get(name, {})
        cells = ['', '', '', '', result.get('failed', 'not run')]
        if 'miou' in result:
            peak = f'{result["peak_memory"] / 1e9:.1f}' if result['peak_memory'] else '-'
            cells = [f'{result["parameters"] / 1e6:.1f}', f'{result["miou"]:.1f}']
            cells += [f'{result["iterations_per_second"]:.3g}', peak, result['precision']]
        lines.append(f'| {entry.title} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def arguments(argv: Sequence[str] | None, known: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='CamVid as in data/README.md')
    parser.add_argument('--models', nargs='+', choices=known, default=known, metavar='NAME', help=', '.join(known))
    parser.add_argument('--iters', type=int, default=20_000)
    parser.add_argument('--batch', type=int, default=8, help='images per iteration')
    parser.add_argument('--crop', type=int, nargs=2, default=[360, 480], metavar=('H', 'W'))
    parser.add_argument('--images', type=int, help='only so many for training and test, to try the script')
    parser.add_argument('--workers', type=int, default=4, help='processes that load images')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/camvid_from_scratch'))
    parser.add_argument('--json', type=Path, help='write the results here too')
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='the GPU where there is one')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train the requested models and print all results; return 1 if some failed, 2 for bad input."""
    known = entries()
    args = arguments(argv, [*known])
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # mmengine reads it once, on import
    import mmengine
    import mmseg
    import timm
    import torch

    import mmseg_volo
    from mmseg_volo.datasets.check.config import check_files
    from mmseg_volo.errors import UsageError

    results: dict[str, dict[str, Any]] = {}
    try:
        if args.device == 'cuda' and not torch.cuda.is_available():
            raise UsageError('--device cuda: torch sees no GPU')
        if min(args.iters, args.batch, *args.crop, args.images or 1) < 1:
            raise UsageError('--iters, --batch, --crop and --images must be positive')
        first = recipe('check', known[args.models[0]], args)
        check_files(first.train_dataloader.dataset, 'the training images')
        frames = check_files(first.val_dataloader.dataset, 'the test images')
        frames = min(frames, args.images or frames)
        for name in args.models:
            results[name] = run(name, known[name], args)
            print(f'\n{table(results, known, frames)}\n', flush=True)
    except (UsageError, FileNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    versions = {m.__name__: m.__version__ for m in (mmseg_volo, mmseg, mmengine, timm, torch)}
    print(f'{args.iters} iterations of {args.batch} crops {args.crop}, {device()}, {versions}')
    if args.json:
        save(args.json, dict(results=results, device=device(), versions=versions, iters=args.iters, frames=frames))
    return int(any('failed' in r for r in results.values()))


if __name__ == '__main__':
    sys.exit(main())
