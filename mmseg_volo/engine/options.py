"""Define the options of a training and of a test, and apply them to a config: config in, config out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmseg_volo.datasets.check.config import refuse_output_in_data
from mmseg_volo.engine.config_checks import datasets_of, refuse_steps
from mmseg_volo.engine.effective_batch import set_batch
from mmseg_volo.engine.fsdp import set_fsdp
from mmseg_volo.engine.optim.precision import set_precision
from mmseg_volo.engine.trackers import set_trackers
from mmseg_volo.errors import UsageError
from mmseg_volo.evaluation.mask_writer import format_only


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options that a training and a test share."""

    config: str  # path of a config, or the name of a shipped one
    cfg_options: Mapping[str, Any] = field(default_factory=dict)  # overrides of config values
    work_dir: str | None = None
    launcher: str = 'none'  # or 'pytorch', 'slurm', 'mpi'
    local_rank: int = 0
    log: Sequence[str] = ()  # of `trackers.TRACKERS`


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """The options of `mmseg-volo train`."""

    resume: bool = False
    overwrite: bool = False
    amp: bool | None = None  # None: chosen by device
    accumulate: int = 1  # iterations per weight update
    auto_scale_lr: bool = False
    fsdp: bool = False
    no_check: bool = False  # skip reading every pixel of the data


@dataclass(frozen=True, kw_only=True)
class TestOptions(RunOptions):
    """The options of `mmseg-volo test`."""

    __test__ = False  # not a pytest test
    checkpoint: str
    show_dir: str | None = None
    out: str | None = None
    format_only: bool = False
    tta: bool = False


def apply_options(cfg: Config, options: TrainOptions | TestOptions) -> Config:
    """Return a copy of a config with the options of a training or a test applied; `cfg` itself is not changed.

    Raises:
        UsageError: an option does not fit the config or this machine.
    """
    _refuse_absent(cfg, options)
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = options.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(options.config).stem)
    cfg.launcher = options.launcher
    set_trackers(cfg, options.log, test=isinstance(options, TestOptions))
    if isinstance(options, TestOptions):
        _apply_test_options(cfg, options)
        return cfg
    cfg.resume = options.resume or cfg.get('resume', False)
    if cfg.resume and options.overwrite:
        raise UsageError('--overwrite starts anew, but the config sets resume=True: leave out one of them')
    set_precision(cfg.optim_wrapper, options.amp)
    set_fsdp(cfg, options.fsdp)
    set_batch(cfg, options.accumulate, options.auto_scale_lr)
    return cfg


def _refuse_absent(cfg: Config, options: TrainOptions | TestOptions) -> None:
    """Refuse a config that does not describe a training or a test."""
    if isinstance(options, TrainOptions):
        command, keys = 'train', ['model', 'train_dataloader', 'optim_wrapper', 'train_cfg']
    else:
        command, keys = 'test', ['model', 'test_dataloader', 'test_cfg']
        keys += [] if options.format_only else ['test_evaluator']
    if absent := [key for key in keys if not cfg.get(key)]:
        raise UsageError(
            f'{options.config} has no {" and no ".join(absent)}, which mmseg-volo {command} needs: '
            f'add it, or inherit it by _base_'
        )


def _apply_test_options(cfg: Config, options: TestOptions) -> None:
    for name, out in (('--out', options.out), ('--show-dir', options.show_dir)):
        if out:
            refuse_output_in_data(cfg.test_dataloader.dataset, out, name)
    cfg.load_from = options.checkpoint
    cfg.fsdp = False  # without gradients and optimiser states, the whole model fits each process
    if options.format_only:
        try:
            format_only(cfg, options.out)
        except (KeyError, TypeError) as error:
            raise UsageError(f'test_dataloader: {" ".join(str(error).split())}') from error
    if options.show_dir:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='OverlayHook', out_dir=options.show_dir)]
    if options.out and not options.format_only:
        evaluators = cfg.test_evaluator
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            evaluator.output_dir = options.out
            if evaluator.type == 'CityscapesMetric':  # it would delete them at the end
                evaluator.keep_results = True
    if options.tta:
        if not cfg.get('tta_pipeline') or not cfg.get('tta_model'):
            raise UsageError(f'--tta needs tta_pipeline and tta_model, which {options.config} does not have')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(**cfg.tta_model, module=cfg.model)
    for dataset in datasets_of(cfg.test_dataloader.dataset):
        refuse_steps(dataset, 'test_dataloader')
