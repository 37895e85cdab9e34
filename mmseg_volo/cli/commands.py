"""Implement the commands of `mmseg-volo`: one function each, which takes the parsed arguments."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from mmengine.config import Config
from mmseg.models import BaseSegmentor

import mmseg_volo.register_all  # noqa: F401
from mmseg_volo.app.page import require_gradio, serve
from mmseg_volo.app.view import Limits
from mmseg_volo.autotrain.initial_weights import try_start
from mmseg_volo.autotrain.options import AutoTrainOptions
from mmseg_volo.autotrain.resume import update_recipe
from mmseg_volo.autotrain.run import print_best_checkpoint, write_training_recipe
from mmseg_volo.cfg_options import parse  # noqa: F401, for `mmseg_volo_cli`
from mmseg_volo.cli import weights as weights_tool
from mmseg_volo.cli.option_checks import refuse_unused, refuse_without_effect
from mmseg_volo.cli.options import folder_options, test_options, train_options
from mmseg_volo.config import load_config
from mmseg_volo.datasets.check.config import check_config, check_data, write_report_file
from mmseg_volo.engine.checkpoint import resumed_from
from mmseg_volo.engine.config_checks import refuse_impossible
from mmseg_volo.engine.distributed import command_line, end_with_launcher, is_first
from mmseg_volo.engine.first_items import try_first_items
from mmseg_volo.engine.options import apply_options
from mmseg_volo.engine.runner import SegRunner
from mmseg_volo.engine.system_errors import naming_system_errors
from mmseg_volo.engine.work_dir import (
    DATA_REPORT,
    folders_of,
    in_use_by_test,
    in_use_by_training,
    refuse_to_replace,
    remove_training,
)
from mmseg_volo.errors import UsageError, print_error
from mmseg_volo.inference import Options, predict_files
from mmseg_volo.inference.api import CHECKPOINT_SUFFIXES, load
from mmseg_volo.io.weights import ensure_local, fetch_pretrained, url_of
from mmseg_volo.models.segmentors import masks_only
from mmseg_volo.report import write_report
from mmseg_volo.report.recorder import recording


def train(args: argparse.Namespace) -> None:
    """Train from a config, or on a folder of images."""
    refuse_without_effect(args)
    end_with_launcher(args.launcher, args.parent)
    folder = folder_options(args)
    with ExitStack() as stack:
        if folder:
            stack.enter_context(in_use_by_training(folder.folder))
            _write_or_update_recipe(folder, args.resume)
        if args.plan_only:
            return
        options = train_options(args, folder)
        cfg = load_config(options.config, options.cfg_options)
        refuse_impossible(cfg)
        cfg = apply_options(cfg, options)
        fetch_initial_weights(cfg)
        first = is_first(cfg.launcher)
        for work_dir in folders_of(cfg):
            if first:
                stack.enter_context(in_use_by_training(work_dir))
            if not cfg.resume and not options.overwrite:
                refuse_to_replace(work_dir)
        stack.enter_context(naming_system_errors(cfg.work_dir))
        _check_data(cfg, ['train_dataloader', 'val_dataloader'], pixels=first and not options.no_check)
        if first:
            try_first_items(cfg, ['train_dataloader', 'val_dataloader'])
        runner = build(cfg, options.local_rank)
        for work_dir in folders_of(cfg) if options.overwrite and first else ():
            remove_training(work_dir, but=(Path(runner.log_dir).name, '' if options.no_check else DATA_REPORT))
        with masks_only(runner.model), recording(runner, command_line(args.argv)):
            runner.train()
        if folder:
            print_best_checkpoint(folder)


def _write_or_update_recipe(folder: AutoTrainOptions, resume: bool) -> None:
    """Write the config of a folder of images, or update the one that `resume` continues."""
    if resume and folder.config.is_file():
        update_recipe(folder)
    else:
        write_training_recipe(folder)


def test(args: argparse.Namespace) -> None:
    """Evaluate a checkpoint and print the score of each class."""
    end_with_launcher(args.launcher, args.parent)
    options = test_options(args)
    if url_of(options.checkpoint) is None and not Path(options.checkpoint).is_file():
        path = Path(options.checkpoint).absolute()
        raise FileNotFoundError(f'no checkpoint at {path}: give the path of a .pth file')
    cfg = load_config(options.config, options.cfg_options)
    ensure_local(options.checkpoint)
    cfg = apply_options(cfg, options)
    in_use = in_use_by_test(cfg.work_dir) if is_first(cfg.launcher) else nullcontext()
    with in_use, naming_system_errors(cfg.work_dir):
        _check_data(cfg, ['test_dataloader'])
        runner = build(cfg, options.local_rank)
        with masks_only(runner.model), recording(runner, command_line(args.argv)):
            runner.test()


def predict(args: argparse.Namespace) -> None:
    """Segment images, videos and GeoTIFFs, and write the outputs that `--outputs` names."""
    count = 1 if args.paths[0].endswith(CHECKPOINT_SUFFIXES) else 2
    if len(args.paths) <= count:
        raise UsageError(f'expected CONFIG CHECKPOINT INPUT... or CHECKPOINT INPUT..., got {" ".join(args.paths)}')
    refuse_unused(args)
    opacity = Options.opacity if args.opacity is None else args.opacity
    options = Options(
        args.outputs, opacity, args.window_size, args.bands, args.value_range, frames=args.video_masks_as_png
    )
    try:
        predict_files(_load(args, args.paths[:count]), args.paths[count:], args.out, options, args.overwrite)
    except (KeyboardInterrupt, SystemExit) as stop:
        print_error(UsageError('stopped; finished results are kept, and the same command continues'))
        raise SystemExit(getattr(stop, 'code', 130)) from None


def _load(args: argparse.Namespace, paths: Sequence[str]) -> BaseSegmentor:
    """Load CHECKPOINT, or CONFIG CHECKPOINT."""
    checkpoint = paths[1] if len(paths) > 1 else None
    return load(paths[0], checkpoint, device=args.device, optimize=args.optimize, bf16=args.bf16)


def report(args: argparse.Namespace) -> None:
    """Write the page of a work dir's results and print its path."""
    print(write_report(args.work_dir, args.out))


def check(args: argparse.Namespace) -> None:
    """Check every image and label of a config, and print statistics of them."""
    if args.workers is not None and args.workers < 1:
        raise UsageError(f'--workers must be at least 1, got {args.workers}')
    check_config(load_config(args.config, args.cfg_options), args.workers, args.out)


def weights(args: argparse.Namespace) -> None:
    """List, fetch, convert or check weights."""
    tool = weights_tool
    calls = dict(list=tool.list_weights, fetch=tool.fetch_weights, convert=tool.convert, check=tool.check)
    calls[args.weights_command](args)


def app(args: argparse.Namespace) -> None:
    """Serve a page to try a checkpoint on images."""
    if len(args.paths) > 2:
        raise UsageError(f'expected CHECKPOINT or CONFIG CHECKPOINT, got {" ".join(args.paths)}')
    if not args.paths[-1].endswith(CHECKPOINT_SUFFIXES):
        raise UsageError(f'{args.paths[-1]} is not a checkpoint: expected a file with {", ".join(CHECKPOINT_SUFFIXES)}')
    if args.port is not None and not 1 <= args.port <= 65535:
        raise UsageError(f'--port must lie in 1..65535, got {args.port}')
    require_gradio()  # fails before the weights are read
    limits = Limits(args.max_mb, args.max_megapixels)
    serve(_load(args, args.paths), f'mmseg_volo: {Path(args.paths[-1]).name}', limits, args.port)


def build(cfg: Config, local_rank: int = 0) -> SegRunner:
    """Build the runner of a config.

    Args:
        cfg: config of a training or a test.
        local_rank: rank of this process on its machine, if its launcher has not set the environment variable.

    Raises:
        UsageError: the config cannot be built.
    """
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    try:
        return SegRunner.from_cfg(cfg)
    except (AssertionError, KeyError, TypeError, ValueError, FileNotFoundError) as error:
        raise UsageError(f'{cfg.filename} cannot be built: {" ".join(str(error).split())}') from error


def fetch_initial_weights(cfg: Config) -> None:
    """Fetch the initial weights of a training and check that they fit.

    The weights of `init_cfg` are skipped if a checkpoint to resume from replaces them.

    Raises:
        FileNotFoundError, UsageError: they cannot be fetched, or do not fit.
    """
    if cfg.get('load_from'):
        try:
            ensure_local(cfg.load_from)
        except (FileNotFoundError, UsageError) as error:
            raise type(error)(f'load_from: {error}') from None
    if not (cfg.resume and resumed_from(cfg)):
        fetch_pretrained(cfg.get('model') or {})
        if is_first(cfg.launcher):
            try_start(cfg.get('model') or {})


def _check_data(cfg: Config, loaders: Sequence[str], pixels: bool = False) -> None:
    """Check the data sets of some loaders (`check_data`), and write the report into the work dir."""
    if (report := check_data(cfg, loaders, pixels)) is not None:
        write_report_file(report, Path(cfg.work_dir) / DATA_REPORT)
