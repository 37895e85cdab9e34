"""Record a training or a test for the results page: `session.json`, `val.json` and `test.json`."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.dist import all_gather_object, get_dist_info, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from mmseg.structures import SegDataSample

from mmseg_volo.engine.optim.precision import precision_of
from mmseg_volo.evaluation.iou import SegIoUMetric
from mmseg_volo.redaction import redact
from mmseg_volo.report import write_report
from mmseg_volo.report.tally import FORMAT, EvaluationTally
from mmseg_volo.utils.files import write_whole

SESSION = 'session.json'
LIBRARIES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmseg', 'timm', 'numpy')


class RecordHook(Hook):
    """Record each validation and test (confusion matrix, best and worst images) and the session beside its log.

    An error here is logged in one line and never ends the run. Each process counts its own images; the first one
    writes. The sampler is assumed to deal images out in turn and to pad with the first ones, as mmengine's does.

    Args:
        command: the command line.
    """

    priority = 'LOWEST'

    def __init__(self, command: str):
        self.session: dict[str, Any] = dict(format=FORMAT, command=command)
        self.folder: Path | None = None  # set once a training or test has started
        self._tally: EvaluationTally | None = None
        self._position = 0  # among the images of this process

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        facts = dict(start_iter=runner.iter, max_iters=runner.max_iters, batch=str(runner.batch))
        facts['images_per_iter'] = (runner.train_dataloader.batch_size or 1) * runner.world_size
        if isinstance(wrapper, OptimWrapper):
            rate = max(group.get('initial_lr', group['lr']) for group in wrapper.param_groups)  # before the schedule
            facts |= dict(optimizer=type(wrapper.optimizer).__name__, lr=rate, precision=precision_of(wrapper))
        self._begin(runner, 'train', facts)

    def before_test(self, runner: Runner) -> None:
        self._begin(runner, 'test', dict(checkpoint=str(runner._load_from), tta='module' in runner.cfg.model))

    def before_val_epoch(self, runner: Runner) -> None:
        self._open(runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        self._open(runner.test_dataloader.dataset)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Sequence[SegDataSample] | None = None
    ) -> None:
        self._count(runner.val_loop, outputs or [])

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Sequence[SegDataSample] | None = None
    ) -> None:
        self._count(runner.test_loop, outputs or [])

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        self._close(runner, 'val', runner.val_dataloader.dataset, metrics, dict(iter=runner.iter))

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        known = {key: self.session.get(key) for key in ('checkpoint', 'tta')}
        self._close(runner, 'test', runner.test_dataloader.dataset, metrics, known)

    def end(self, runner: Runner, outcome: str) -> None:
        """Write the end of the session.

        Args:
            runner: the runner of this hook.
            outcome: 'finished', or why it ended early.
        """
        self.session |= dict(ended=_now(), outcome=outcome)
        with suppress(ImportError):  # Windows has no `resource`
            import resource

            unit = 2**20 if sys.platform == 'darwin' else 2**10
            self.session['memory_mb'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
        if torch.cuda.is_available():
            self.session['gpu_memory_mb'] = torch.cuda.max_memory_allocated() // 2**20
        if self.session['kind'] == 'train':
            self.session['end_iter'] = runner.iter
        self._write(SESSION, self.session)

    def _begin(self, runner: Runner, kind: str, facts: Mapping[str, Any]) -> None:
        self.folder = Path(runner.log_dir)
        if is_main_process():
            with _warn_on_error('of this session'):
                name = runner.experiment_name.removesuffix(f'_{runner.timestamp}')
                self.session |= dict(kind=kind, started=_now(), name=name, **facts, **_machine(runner))
                self.session |= dict(model=_model(runner), data=_data(runner, kind))
                self._write(SESSION, self.session)

    def _open(self, dataset: Any) -> None:
        self._position = 0
        classes = getattr(dataset, 'metainfo', {}).get('classes') or ()
        self._tally = EvaluationTally(len(classes), getattr(dataset, 'ignore_index', 255)) if classes else None

    def _count(self, loop: BaseLoop, outputs: Sequence[SegDataSample]) -> None:
        rank, processes = get_dist_info()
        for sample, matrix in zip(outputs, _counted(loop, len(outputs)), strict=True):
            repeated = self._position * processes + rank >= len(loop.dataloader.dataset)
            self._position += 1
            if self._tally is None or repeated or 'gt_sem_seg' not in sample:
                continue
            try:
                truth, mask = sample.gt_sem_seg.data[0], sample.pred_sem_seg.data[0]
                self._tally.add(str(sample.get('img_path')), truth, mask, matrix)
            except Exception as error:
                self._tally = None
                _warn('of this evaluation', error)

    def _close(
        self, runner: Runner, kind: str, dataset: Any, metrics: Mapping[str, float] | None, known: Mapping[str, Any]
    ) -> None:
        tallies = all_gather_object(self._tally)
        self._tally = None
        if not is_main_process() or None in tallies or not any(tally.images for tally in tallies):
            return
        with _warn_on_error('of this evaluation'):
            for other in tallies[1:]:
                tallies[0].merge(other)
            meta = dataset.metainfo
            scores = {name: float(value) for name, value in (metrics or {}).items() if _is_number(value)}
            self._write(
                f'{kind}.json',
                dict(
                    **tallies[0].record(),
                    **known,
                    kind=kind,
                    time=_now(),
                    classes=[str(name) for name in meta['classes']],
                    palette=[[int(value) for value in colour] for colour in meta['palette']],
                    metrics=scores,
                ),
            )

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / name, json.dumps(redact(content)).encode())


@contextmanager
def recording(runner: Runner, command: str) -> Iterator[None]:
    """Record a training or test, and write `WORK_DIR/report.html` at its end.

    It is also written after a stop or a failure, once the run has started. An error of the report is logged in one
    line.

    Args:
        runner: a built runner.
        command: the command line.
    """
    hook, outcome = RecordHook(command), 'finished'
    runner.register_hook(hook)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        outcome = 'stopped'
        raise
    except BaseException as error:
        outcome = f'failed: {" ".join(str(error).split())[:300] or type(error).__name__}'
        raise
    finally:
        if hook.folder is not None and is_main_process():
            with _warn_on_error('of the results'):
                hook.end(runner, outcome)
                page = write_report(runner.work_dir)
                if outcome == 'finished':  # else the reason is the last line
                    runner.logger.info(f'report: {page}')


@contextmanager
def _warn_on_error(subject: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _warn(subject, error)


def _warn(subject: str, error: Exception) -> None:
    reason = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
    print_log(f'there is no report {subject} ({reason})', logger='current', level=logging.WARNING)


def _counted(loop: BaseLoop, count: int) -> Sequence[np.ndarray | None]:
    """Return the confusion matrices of the last batch as our metric has counted them; None each for another metric."""
    for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):  # loops of others may have none
        if isinstance(metric, SegIoUMetric) and len(metric.matrices) == count:
            return metric.matrices
    return [None] * count


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='seconds')


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _machine(runner: Runner) -> dict[str, Any]:
    import mmseg_volo

    versions = {name: sys.modules[name].__version__ for name in LIBRARIES if name in sys.modules}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return dict(
        versions={'mmseg_volo': mmseg_volo.__version__, 'python': platform.python_version(), **versions},
        device=gpu or get_device().upper(),
        processes=runner.world_size,
        cores=os.cpu_count(),
        system=platform.platform(),
    )


def _model(runner: Runner) -> dict[str, Any]:
    cfg = runner.cfg.model.get('module', runner.cfg.model)  # of `tta_model`
    heads = cfg.get('decode_head') or {}
    head = heads[-1] if isinstance(heads, Sequence) else heads
    backbone = cfg.get('backbone') or {}
    starts = [start for start in (backbone.get('init_cfg'), cfg.get('init_cfg')) if isinstance(start, Mapping)]
    return dict(
        backbone=str(backbone.get('type')),
        arch=backbone['arch'] if isinstance(backbone.get('arch'), str) else None,
        weights=next(
            (start['checkpoint'] for start in starts if isinstance(start, Mapping) and 'checkpoint' in start), None
        ),
        neck=(cfg.get('neck') or {}).get('type'),
        head=str(head.get('type')),
        params=sum(parameter.numel() for parameter in runner.model.parameters()),
    )


def _data(runner: Runner, kind: str) -> dict[str, Any]:
    loops = dict(train=runner.train_loop, val=runner.val_loop) if kind == 'train' else dict(test=runner.test_loop)
    data_sets = {}
    for role, loop in loops.items():
        if loop is not None:
            dataset = loop.dataloader.dataset
            folder = (getattr(dataset, 'data_prefix', None) or {}).get('img_path', '')
            name = runner.cfg[f'{role}_dataloader'].dataset.get('type')
            data_sets[role] = dict(type=str(name), images=len(dataset), folder=str(folder))
    return data_sets
