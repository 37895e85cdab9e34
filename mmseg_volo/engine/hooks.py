"""Checkpoints of plain data, losses of all processes, pictures of what was tested."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce_dict
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_volo.checkpoint_files import RECORD
from mmseg_volo.draw import colour, overlay, with_legend
from mmseg_volo.errors import UsageError
from mmseg_volo.files import encode, write_whole
from mmseg_volo.folders.bands import as_picture
from mmseg_volo.secrets import masked

PATIENCE = 'early_stopping'  # in the message hub: validations without a better score, best score
ACCUMULATED = 'accumulated'  # meta[ACCUMULATED]: iterations per update of the weights


def plain(value: Any) -> Any:
    """The same content in types that `torch.load(weights_only=True)` reads: NumPy becomes torch or Python, a class its
    name, as registries have it."""
    if isinstance(value, Mapping):
        return {k if isinstance(k, str | int) else plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value] if not isinstance(value, tuple) else tuple(plain(v) for v in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in 'biufc' else plain(value.tolist())
    if isinstance(value, HistoryBuffer):
        histories = map(plain, value.data)
        return dict(zip(('log_history', 'count_history'), histories, strict=True), max_length=value.max_length)
    if value is None or isinstance(value, (str, bytes, bool, int, float, Tensor)):
        return value
    return value.__name__ if isinstance(value, type) else str(value)


def make_plain(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Keeps pickled classes out of a checkpoint, and writes into it what `mmseg_volo.load(checkpoint)` needs.

    mmengine stores its log buffers as objects with NumPy arrays and functions inside, which safe loading refuses; here
    they are stored as tensors, and `restore_buffers` makes them into objects again.

    Args:
        runner: in training.
        checkpoint: what mmengine saves of it; changed.
    """
    meta = checkpoint['meta']
    shown = meta.get('dataset_meta')
    meta[RECORD] = masked({'model': runner.cfg['model'], 'test_pipeline': _test_steps(runner.cfg)})
    meta[ACCUMULATED] = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    if isinstance(shown, Mapping):  # as .safetensors can hold it
        lists = {key: value.tolist() for key, value in shown.items() if isinstance(value, np.ndarray)}
        meta['dataset_meta'] = {**shown, **lists}
    for key, value in checkpoint.items():
        if key not in ('state_dict', 'ema_state_dict'):
            checkpoint[key] = plain(value)


def _test_steps(cfg: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The steps by which a config loads the images that it tests."""
    if 'test_pipeline' in cfg:
        return cfg['test_pipeline']
    loaders = (cfg.get(f'{role}_dataloader') or {} for role in ('test', 'val'))
    return next((steps for loader in loaders if (steps := (loader.get('dataset') or {}).get('pipeline'))), [])


def restore_buffers(checkpoint: Mapping[str, Any]) -> None:
    """Makes mmengine's log buffers of what `make_plain` stored."""
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, saved in scalars.items():
        if isinstance(saved, Mapping):
            history, count = saved['log_history'].numpy(), saved['count_history'].numpy()
            scalars[name] = HistoryBuffer(history, count, saved['max_length'])


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Has another runner than ours, which does so of itself, write and read checkpoints of plain data: `make_plain`."""

    priority = 'VERY_LOW'  # last, to see what the other hooks have put in

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        make_plain(runner, checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        restore_buffers(checkpoint)


@HOOKS.register_module()
class LastingEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's; the best score and for how long there was no better one are in checkpoints, and outlast a resume."""

    priority = 'LOW'  # before the checkpoint of a best score is written

    def before_train(self, runner: Runner) -> None:
        self.wait_count, self.best_score = runner.message_hub.runtime_info.get(
            PATIENCE, (self.wait_count, self.best_score)
        )

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(PATIENCE, (self.wait_count, self.best_score))


@HOOKS.register_module()
class MeanOverProcessesHook(Hook):
    """Losses and accuracies are logged as the mean over all processes; mmengine logs those of the first."""

    priority = 'HIGHEST'  # before the hook that writes them down

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if runner.world_size > 1 and outputs:
            values = {k: v.detach().float() for k, v in outputs.items() if isinstance(v, Tensor)}
            all_reduce_dict(values, op='mean')
            outputs.update(values)


@HOOKS.register_module()
class OverlayHook(Hook):
    """After each tested image, a picture of it, the truth and the prediction side by side, with a legend.

    Args:
        out_dir: folder of the pictures; they keep the images' paths below the data set's folder.
        opacity: of the colours, 0 to 1.
    """

    def __init__(self, out_dir: str, opacity: float = 0.6):
        self.out_dir = Path(out_dir)
        self.opacity = opacity

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[SegDataSample]
    ) -> None:
        dataset = runner.test_dataloader.dataset
        classes, palette = dataset.metainfo['classes'], dataset.metainfo['palette']
        for sample in outputs:
            image = as_picture(sample.img_path)
            mask = sample.pred_sem_seg.data[0].cpu().numpy()
            pictures = [image, overlay(image, mask, palette, self.opacity)]
            if 'gt_sem_seg' in sample:
                pictures.insert(1, colour(sample.gt_sem_seg.data[0].cpu().numpy(), palette))
            picture = with_legend(np.concatenate(pictures, 1), mask, classes, palette)
            path = self.out_dir / os.path.relpath(sample.img_path, dataset.data_prefix['img_path'])
            _write(path.with_suffix('.jpg'), picture)


def _write(path: Path, picture: np.ndarray) -> None:
    """Writes a picture, RGB, or says why such a file cannot hold it: that is no reason to end a test."""
    try:
        content = encode(path.suffix, picture[..., ::-1])
    except UsageError as error:
        MMLogger.get_current_instance().warning(f'{path} is left out: {error}')
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f'{path} cannot be written ({error.strerror}): make room, or name another folder') from error
