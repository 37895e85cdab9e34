"""What the commands of `mmseg-volo` do."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import fields
from pathlib import Path

from mmengine.config import Config

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
from mmseg_volo.config import load_config
from mmseg_volo.datasets.check.config import check_config, check_data, refuse_output_in_data, write_report_file
from mmseg_volo.engine.checkpoint import resumed_from
from mmseg_volo.engine.config_checks import datasets_of, refuse_impossible, refuse_steps
from mmseg_volo.engine.distributed import command_line, end_with_launcher, is_first
from mmseg_volo.engine.effective_batch import set_batch
from mmseg_volo.engine.first_items import try_first_items
from mmseg_volo.engine.fsdp import set_fsdp
from mmseg_volo.engine.optim.precision import set_precision
from mmseg_volo.engine.runner import SegRunner
from mmseg_volo.engine.system_errors import naming_system_errors
from mmseg_volo.engine.trackers import set_trackers
from mmseg_volo.engine.work_dir import (
    DATA_REPORT,
    folders_of,
    in_use_by_test,
    in_use_by_training,
    refuse_to_replace,
    remove_training,
)
from mmseg_volo.errors import UsageError, print_error
from mmseg_volo.evaluation.mask_writer import format_only
from mmseg_volo.inference import Options, predict_files
from mmseg_volo.inference.api import CHECKPOINT_SUFFIXES, load
from mmseg_volo.io.weights import ensure_local, fetch_pretrained, url_of
from mmseg_volo.models.segmentors import masks_only
from mmseg_volo.report import write_report
from mmseg_volo.report.recorder import recording


def train(args: argparse.Namespace) -> None:
    """Trains what a config describes, or on a folder of images."""
    refuse_without_effect(args)
    end_with_launcher(args.launcher, args.parent)
    wishes, first = _wishes(args), is_first(args.launcher)
    with ExitStack() as stack:
        if wishes:
            stack.enter_context(in_use_by_training(wishes.place))
            _take_folder(args, wishes)
        if args.plan_only:
            return
        cfg = read_config(args)
        refuse_impossible(cfg)
        if cfg.resume and args.overwrite:
            raise UsageError('--overwrite begins anew, and the config says resume=True: leave out one of them')
        for folder in folders_of(cfg):
            if first:
                stack.enter_context(in_use_by_training(folder))
            if not cfg.resume and not args.overwrite:
                refuse_to_replace(folder)
        stack.enter_context(naming_system_errors(cfg.work_dir))
        prepare(cfg, args, ['train_dataloader', 'val_dataloader'], pixels=first and not args.no_check)
        set_precision(cfg.optim_wrapper, args.amp)
        set_fsdp(cfg, args.fsdp)
        set_batch(cfg, args.accumulate, args.auto_scale_lr)
        if first:
            try_first_items(cfg, ['train_dataloader', 'val_dataloader'])
        runner = build(cfg)
        for folder in folders_of(cfg) if args.overwrite and first else ():
            remove_training(folder, but=(Path(runner.log_dir).name, '' if args.no_check else DATA_REPORT))
        with masks_only(runner.model), recording(runner, command_line(args.argv)):
            runner.train()
        if wishes:
            print_best_checkpoint(wishes)


def _wishes(args: argparse.Namespace) -> AutoTrainOptions | None:
    """`--data` and the like, if they are given."""
    if args.config and not (args.data or args.model):
        return None
    if args.config or not args.data or not args.model:
        raise UsageError('give either a config, or both --data FOLDER and --model NAME')
    wishes = AutoTrainOptions(**{field.name: getattr(args, field.name) for field in fields(AutoTrainOptions)})
    if args.launcher != 'none':
        raise UsageError(
            f'several processes train a config: make it first, with --plan-only and without launcher, then '
            f'start them with {wishes.config}'
        )
    return wishes


def _take_folder(args: argparse.Namespace, wishes: AutoTrainOptions) -> None:
    """Makes a config of a folder, or goes on with the one that was made."""
    if args.resume and wishes.config.is_file():
        update_recipe(wishes)
    else:
        write_training_recipe(wishes)
    args.config, args.work_dir = str(wishes.config), str(wishes.place)


def test(args: argparse.Namespace) -> None:
    """Evaluates a checkpoint and prints the score of each class."""
    end_with_launcher(args.launcher, args.parent)
    if url_of(args.checkpoint) is None and not Path(args.checkpoint).is_file():
        raise FileNotFoundError(f'no checkpoint at {Path(args.checkpoint).absolute()}: give the path of a .pth file')
    cfg = read_config(args)
    ensure_local(args.checkpoint)
    with in_use_by_test(cfg.work_dir) if is_first(args.launcher) else nullcontext(), naming_system_errors(cfg.work_dir):
        _test(args, cfg)


def _test(args: argparse.Namespace, cfg: Config) -> None:
    for option, folder in (('--out', args.out), ('--show-dir', args.show_dir)):
        if folder:
            refuse_output_in_data(cfg.test_dataloader.dataset, folder, option)
    prepare(cfg, args, ['test_dataloader'])
    cfg.load_from = args.checkpoint
    cfg.fsdp = False  # each process has the whole model: nothing else of a training is there
    if args.show_dir:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='OverlayHook', out_dir=args.show_dir)]
    if args.out and not args.format_only:
        given = cfg.test_evaluator
        for evaluator in given if isinstance(given, list) else [given]:
            evaluator.output_dir = args.out
            if evaluator.type == 'CityscapesMetric':  # it would remove them again
                evaluator.keep_results = True
    if args.tta:
        if not cfg.get('tta_pipeline') or not cfg.get('tta_model'):
            raise UsageError(f'--tta needs tta_pipeline and tta_model, which {args.config} does not have')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(**cfg.tta_model, module=cfg.model)
    for dataset in datasets_of(cfg.test_dataloader.dataset):
        refuse_steps(dataset, 'test_dataloader')
    runner = build(cfg)
    with masks_only(runner.model), recording(runner, command_line(args.argv)):
        runner.test()


def predict(args: argparse.Namespace) -> None:
    """Segments images, videos and GeoTIFFs, and writes what is asked for."""
    count = 1 if args.paths[0].endswith(CHECKPOINT_SUFFIXES) else 2
    if len(args.paths) <= count:
        raise UsageError(f'expected CONFIG CHECKPOINT INPUT... or CHECKPOINT INPUT..., got {" ".join(args.paths)}')
    refuse_unused(args)
    opacity = Options.opacity if args.opacity is None else args.opacity
    options = Options(args.outputs, opacity, args.windows, args.bands, args.value_range, args.frames)
    try:
        predict_files(
            load(*args.paths[:count], device=args.device, optimize=args.optimize, bf16=args.bf16),
            args.paths[count:],
            args.out,
            options,
            args.overwrite,
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        print_error(UsageError('stopped; what is done is kept, the same command goes on'))
        raise SystemExit(getattr(stop, 'code', 130)) from None


def report(args: argparse.Namespace) -> None:
    """Writes the page of a work dir's results."""
    print(write_report(args.work_dir, args.out))


def check(args: argparse.Namespace) -> None:
    """Looks at every image and label that a config names, and prints what they hold."""
    if args.workers is not None and args.workers < 1:
        raise UsageError(f'--workers must be at least 1, got {args.workers}')
    check_config(load_config(args.config, args.cfg_options), args.workers, args.out)


def weights(args: argparse.Namespace) -> None:
    """Lists, fetches, converts or checks weights."""
    tool = weights_tool
    calls = dict(list=tool.list_weights, fetch=tool.fetch_weights, convert=tool.convert, check=tool.check)
    calls[args.weights_command](args)


def demo(args: argparse.Namespace) -> None:
    """Serves a page to try a checkpoint on images."""
    if len(args.paths) > 2:
        raise UsageError(f'expected CHECKPOINT or CONFIG CHECKPOINT, got {" ".join(args.paths)}')
    if not args.paths[-1].endswith(CHECKPOINT_SUFFIXES):
        raise UsageError(f'{args.paths[-1]} is no checkpoint: expected a file with {", ".join(CHECKPOINT_SUFFIXES)}')
    if args.port is not None and not 1 <= args.port <= 65535:
        raise UsageError(f'--port must lie in 1..65535, got {args.port}')
    require_gradio()  # its absence is said before the weights are read
    limits = Limits(args.max_mb, args.max_megapixels)
    model = load(*args.paths, device=args.device, optimize=args.optimize, bf16=args.bf16)
    serve(model, f'mmseg_volo: {Path(args.paths[-1]).name}', limits, args.port)


def build(cfg: Config) -> SegRunner:
    """The runner of a config; what is wrong with the config is said in one sentence."""
    try:
        return SegRunner.from_cfg(cfg)
    except (AssertionError, KeyError, TypeError, ValueError, FileNotFoundError) as error:
        raise UsageError(f'{cfg.filename} cannot be built: {" ".join(str(error).split())}') from error


def read_config(args: argparse.Namespace) -> Config:
    """The config with its work dir; the weights that a training starts from are there, but those of `init_cfg` where a
    checkpoint to resume from replaces them."""
    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    if args.command == 'train':
        cfg.resume = args.resume or cfg.get('resume', False)
        if cfg.get('load_from'):
            _have('load_from', cfg.load_from)
        if not (cfg.resume and resumed_from(cfg)):
            fetch_pretrained(cfg.get('model') or {})
            if is_first(args.launcher):
                try_start(cfg.get('model') or {})
    return cfg


def _have(what: str, source: str) -> None:
    try:
        ensure_local(source)
    except (FileNotFoundError, UsageError) as error:
        raise type(error)(f'{what}: {error}') from None


def prepare(cfg: Config, args: argparse.Namespace, loaders: Sequence[str], pixels: bool = False) -> None:
    """Applies the common arguments, and looks at the data sets that will be used (`check_data`)."""
    cfg.launcher = args.launcher
    set_trackers(cfg, args.log, test=args.command == 'test')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if getattr(args, 'format_only', False) and cfg.get('test_dataloader'):
        try:
            format_only(cfg, args.out)
        except (KeyError, TypeError) as error:
            raise UsageError(f'test_dataloader: {" ".join(str(error).split())}') from error
    if (found := check_data(cfg, loaders, pixels)) is not None:
        write_report_file(found, Path(cfg.work_dir) / DATA_REPORT)
