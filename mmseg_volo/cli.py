"""`mmseg-volo train|test|predict|weights`, which `tools/*.py` call too."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.dist import is_distributed
from torch.distributed import destroy_process_group

from mmseg_volo.apis import CHECKPOINT_SUFFIXES, load
from mmseg_volo.config import load_config
from mmseg_volo.datasets.check import check_files
from mmseg_volo.engine.batch import set_batch
from mmseg_volo.engine.fsdp import set_fsdp
from mmseg_volo.engine.optim import set_precision
from mmseg_volo.engine.runner import SegRunner
from mmseg_volo.errors import UsageError, say
from mmseg_volo.evaluation.masks import format_only
from mmseg_volo.inference import predict_files
from mmseg_volo.segmentors import masks_only
from mmseg_volo.weights_tool import add_arguments


def parser() -> argparse.ArgumentParser:
    """The arguments that MMSegmentation's users know."""
    root = argparse.ArgumentParser('mmseg-volo', description='Train, test and use semantic segmentors.')
    commands = root.add_subparsers(dest='command', required=True, metavar='train|test|predict|weights')

    train_args = commands.add_parser('train', help='train a segmentor')
    train_args.add_argument('config', help='path of a config, or the name of a shipped one')
    train_args.add_argument('--resume', action='store_true', help='go on from the latest checkpoint in the work dir')
    train_args.add_argument(
        '--amp',
        action=argparse.BooleanOptionalAction,
        help='mixed precision: bfloat16 where the device has it; on by default on GPUs that have it',
    )
    train_args.add_argument(
        '--accumulate',
        type=int,
        default=1,
        metavar='N',
        help='update after N iterations; max_iters and intervals of the config then count updates',
    )
    train_args.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate to the batch')
    train_args.add_argument('--fsdp', action='store_true', help='split the model that does not fit one GPU over all')
    _add_common(train_args)

    test_args = commands.add_parser('test', help='evaluate a checkpoint')
    test_args.add_argument('config', help='path of a config, or the name of a shipped one')
    test_args.add_argument('checkpoint', help='path of a checkpoint')
    test_args.add_argument('--show-dir', help='folder for pictures: image, truth and prediction side by side')
    test_args.add_argument('--out', help='folder for the predicted masks')
    test_args.add_argument(
        '--format-only',
        action='store_true',
        help="write masks as the data set's test server wants them to --out, and score nothing; needs no labels",
    )
    test_args.add_argument('--tta', action='store_true', help='average over scales and flips')
    _add_common(test_args)

    predict_args = commands.add_parser('predict', help='segment images')
    predict_args.add_argument(
        'paths',
        nargs='+',
        metavar='MODEL',
        help='CONFIG CHECKPOINT INPUT..., or CHECKPOINT INPUT...: images, folders or patterns such as "photos/*.jpg"',
    )
    predict_args.add_argument('--out', required=True, help='folder for masks/ and overlays/')
    predict_args.add_argument('--opacity', type=float, default=0.5, help='of the overlay, 0 to 1')
    predict_args.add_argument('--device', help="e.g. 'cpu', 'cuda:1'")
    add_arguments(commands.add_parser('weights', help='list, fetch, convert and check weights'))
    return root


def _add_common(args: argparse.ArgumentParser) -> None:
    args.add_argument('--work-dir', help='folder for logs and results; ./work_dirs/CONFIG if not given')
    args.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    args.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    args.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value pairs that override the config')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: e.g. `['train', 'volo_demo', '--amp']`; `sys.argv[1:]` if None.

    Returns:
        The exit status: 0, or 2 with one sentence on stderr when what the user gave cannot work.
    """
    args = parser().parse_args(argv)
    try:
        {'train': train, 'test': test, 'predict': predict, 'weights': weights}[args.command](args)
    except (UsageError, FileNotFoundError) as error:
        say(error)
        return 2
    if is_distributed():  # NCCL warns of processes that do not take leave
        destroy_process_group()
    return 0


def train(args: argparse.Namespace) -> None:
    """Trains what a config describes."""
    cfg = prepare(args, ['train_dataloader', 'val_dataloader'])
    cfg.resume = args.resume or cfg.get('resume', False)
    set_precision(cfg.optim_wrapper, args.amp)
    set_fsdp(cfg, args.fsdp)
    set_batch(cfg, args.accumulate, args.auto_scale_lr)
    runner = build(cfg)
    with masks_only(runner.model):
        runner.train()


def test(args: argparse.Namespace) -> None:
    """Evaluates a checkpoint and prints the score of each class."""
    if not Path(args.checkpoint).is_file():
        raise FileNotFoundError(f'no checkpoint at {Path(args.checkpoint).absolute()}: give the path of a .pth file')
    cfg = prepare(args, ['test_dataloader'])
    cfg.load_from = args.checkpoint
    cfg.fsdp = False  # each process has the whole model: nothing else of a training is there
    if args.show_dir:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='OverlayHook', out_dir=args.show_dir)]
    if args.out and not args.format_only:
        cfg.test_evaluator.output_dir = args.out
        if cfg.test_evaluator.type == 'CityscapesMetric':  # it would remove them again
            cfg.test_evaluator.keep_results = True
    if args.tta:
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(**cfg.tta_model, module=cfg.model)
    runner = build(cfg)
    with masks_only(runner.model):
        runner.test()


def predict(args: argparse.Namespace) -> None:
    """Segments images and writes masks and overlays."""
    count = 1 if args.paths[0].endswith(CHECKPOINT_SUFFIXES) else 2
    if len(args.paths) <= count:
        raise UsageError(f'expected CONFIG CHECKPOINT INPUT... or CHECKPOINT INPUT..., got {" ".join(args.paths)}')
    predict_files(load(*args.paths[:count], device=args.device), args.paths[count:], args.out, args.opacity)


def weights(args: argparse.Namespace) -> None:
    """Lists, fetches, converts or checks weights."""
    args.call(args)


def build(cfg: Config) -> SegRunner:
    """The runner of a config; what is wrong with the config is said in one sentence."""
    try:
        return SegRunner.from_cfg(cfg)
    except (AssertionError, KeyError, TypeError, ValueError, FileNotFoundError) as error:
        raise UsageError(f'{cfg.filename} cannot be built: {" ".join(str(error).split())}') from error


def prepare(args: argparse.Namespace, loaders: Sequence[str]) -> Config:
    """Loads the config, applies the common arguments, and looks at the data sets that will be used."""
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if 'visualizer' in cfg:  # mmengine keeps one per name in a process, and warns of a second
        cfg.visualizer.name = args.command
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    for loader in loaders:
        if cfg.get(loader):
            try:
                if getattr(args, 'format_only', False):
                    format_only(cfg, args.out)
                check_files(cfg[loader].dataset, loader)
            except (KeyError, TypeError) as error:
                raise UsageError(f'{loader}: {" ".join(str(error).split())}') from error
    return cfg


def run() -> None:
    """The console command `mmseg-volo`."""
    sys.exit(main())


if __name__ == '__main__':  # what `launch.py` starts
    run()
