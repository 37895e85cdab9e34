"""Collect the content of a checkpoint as plain data: what mmengine saves, and what an exact resume needs besides."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import mmengine
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor

from mmseg_volo.engine.loop import SAMPLES_DRAWN
from mmseg_volo.io.checkpoint import RECORD
from mmseg_volo.redaction import redact

GRADIENTS = 'gradients'  # accumulated for an update that is still pending
ACCUMULATED = 'accumulated'  # meta[ACCUMULATED]: iterations per weight update


def checkpoint_content(runner: Runner, meta: Mapping[str, Any], optimizer: bool, schedules: bool) -> dict[str, Any]:
    """Return what mmengine saves of a training, and what an exact resume needs in addition.

    Args:
        runner: in training.
        meta: its epoch and iteration.
        optimizer: whether to save the optimiser's state and accumulated gradients.
        schedules: whether to save the schedules' state.
    """
    model, optim = runner.model.module if is_model_wrapper(runner.model) else runner.model, runner.optim_wrapper
    content = dict(
        meta={
            **meta,
            'cfg': runner.cfg.pretty_text,
            'seed': runner.seed,
            'experiment_name': runner.experiment_name,
            'time': time.strftime('%Y%m%d_%H%M%S'),
            'mmengine_version': mmengine.__version__,
            'dataset_meta': getattr(runner.train_dataloader.dataset, 'metainfo', None),
            SAMPLES_DRAWN: getattr(runner.train_loop, SAMPLES_DRAWN, None),
        },
        state_dict=weights_to_cpu(model.state_dict()),
        message_hub=runner.message_hub.state_dict(),
    )
    if optimizer:
        content['optimizer'] = optim.state_dict()
        if not optim.should_update() and runner.world_size == 1:  # over several processes they are not summed yet
            content[GRADIENTS] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if schedules and runner.param_schedulers is not None:
        content['param_schedulers'] = [scheduler.state_dict() for scheduler in runner.param_schedulers]
    return content


def to_plain(value: object) -> object:
    """Convert content to types that `torch.load(weights_only=True)` reads: NumPy to torch or Python, a class to its
    registered name."""
    if isinstance(value, Mapping):
        return {k if isinstance(k, str | int) else to_plain(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_plain(v) for v in value] if not isinstance(value, tuple) else tuple(to_plain(v) for v in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in 'biufc' else to_plain(value.tolist())
    if isinstance(value, HistoryBuffer):
        histories = map(to_plain, value.data)
        return dict(zip(('log_history', 'count_history'), histories, strict=True), max_length=value.max_length)
    if value is None or isinstance(value, (str, bytes, bool, int, float, Tensor)):
        return value
    return value.__name__ if isinstance(value, type) else str(value)


def make_plain(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Convert a checkpoint to plain data, and add what `mmseg_volo.load(checkpoint)` needs.

    mmengine stores its log buffers as objects with NumPy arrays and functions inside, which safe loading refuses; here
    they are stored as tensors, from which `restore_buffers` rebuilds the objects.

    Args:
        runner: in training.
        checkpoint: its checkpoint as mmengine saves it; changed in place.
    """
    meta = checkpoint['meta']
    dataset_meta = meta.get('dataset_meta')
    meta[RECORD] = redact({'model': runner.cfg['model'], 'test_pipeline': _test_steps(runner.cfg)})
    meta[ACCUMULATED] = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    if isinstance(dataset_meta, Mapping):  # in types that .safetensors can hold
        lists = {key: value.tolist() for key, value in dataset_meta.items() if isinstance(value, np.ndarray)}
        meta['dataset_meta'] = {**dataset_meta, **lists}
    for key, value in checkpoint.items():
        if key not in ('state_dict', 'ema_state_dict'):
            checkpoint[key] = to_plain(value)


def _test_steps(cfg: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the pipeline of the images that a config tests."""
    loaders = (cfg.get(f'{role}_dataloader') or {} for role in ('test', 'val'))
    pipelines = ((loader.get('dataset') or {}).get('pipeline') for loader in loaders)
    steps: Sequence[Mapping[str, Any]] = (
        cfg['test_pipeline'] if 'test_pipeline' in cfg else next(filter(None, pipelines), [])
    )
    return steps


def restore_buffers(checkpoint: Mapping[str, Any]) -> None:
    """Rebuild mmengine's log buffers from what `make_plain` stored."""
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, saved in scalars.items():
        if isinstance(saved, Mapping):
            history, count = saved['log_history'].numpy(), saved['count_history'].numpy()
            scalars[name] = HistoryBuffer(history, count, saved['max_length'])


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Let mmengine's own runner write and read checkpoints of plain data; `SegRunner` does so itself."""

    priority = 'VERY_LOW'  # last, to see what other hooks have added

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        make_plain(runner, checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        restore_buffers(checkpoint)
