"""End a training whose loss or gradients become NaN or infinite, and keep its last good checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmseg_volo.errors import UsageError
from mmseg_volo.io.weights import non_finite_names

SHOWN = 8  # images that a message lists
DIVERGED_NAME = 'diverged_iter_{}.pth'  # not a name that `--resume` picks up


@HOOKS.register_module(name=['NonFiniteGuardHook', 'FiniteHook'])
class NonFiniteGuardHook(Hook):
    """End a training at a NaN or infinite loss or gradient, name the iteration and its images, and save the state to
    `diverged_iter_N.pth`. The update with such gradients is skipped, so that this file holds the last good weights.
    Weights that contain NaN or infinity are never saved: the checkpoint before stays.

    With float16 loss scaling (`--amp` on older GPUs), updates are skipped now and then until the scale fits: only
    losses count there. Several processes end together. The hook waits for the GPU once per update, before the
    optimiser, unless gradients are clipped: mmengine waits for their norm itself.

    Args:
        tries: number of non-finite updates in a row that ends the training; those before are skipped with a warning.
            Non-finite running statistics of a norm end it at once: no later update would repair them.
    """

    priority = 'HIGHEST'  # first: it sees the loss of this process alone, and before anything is saved

    def __init__(self, tries: int = 1):
        if tries < 1:
            raise ValueError(f'NonFiniteGuardHook: tries must be 1 or more, got {tries}')
        self.tries = tries
        self._failed = 0  # non-finite updates in a row
        self._reason = ''  # why this update is not finite
        self._ending = False
        self._warned = False

    def before_train(self, runner: Runner) -> None:
        """Check gradients before each update from here on."""
        wrapper = runner.optim_wrapper
        scaler = getattr(wrapper, 'loss_scaler', None)
        if not isinstance(wrapper, OptimWrapper) or (scaler is not None and scaler.is_enabled()):
            return

        def skip_non_finite(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            params = [p for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
            norm = _norm(wrapper, params)
            if not math.isfinite(norm):
                self._reason = self._reason or f'the norm of the gradients is {norm}'
                for p in params:
                    p.grad = None

        wrapper.optimizer.register_step_pre_hook(skip_non_finite)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Warn once if every pixel of a batch is ignored."""
        if not self._warned and _all_ignored(data_batch, runner):
            self._warned = True
            runner.logger.warning(
                f'iteration {runner.iter + 1}: all pixels of the batch are ignored, so that it trains nothing '
                f'({_some(_images(data_batch))}); this is reported once, mmseg-volo check CONFIG finds such labels'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Mapping[str, object] | None = None
    ) -> None:
        """Count a non-finite update, or end the training."""
        loss = torch.as_tensor((outputs or {}).get('loss', 0.0)).item()
        if not math.isfinite(loss):
            self._reason = f'the loss is {loss}'
        failing = torch.tensor(int(bool(self._reason)))
        all_reduce(failing, 'max')
        if failing:
            self._fail(runner, data_batch)
        elif runner.optim_wrapper.should_update():
            self._failed = 0

    def _fail(self, runner: Runner, data_batch: object) -> None:
        buffers = non_finite_names(dict(runner.model.named_buffers()))
        processes: list[tuple[str, list[str], list[str]]] = all_gather_object(
            (self._reason, _images(data_batch), buffers)
        )
        reason = next(reason for reason, _, _ in processes if reason)
        images = [path for reason, paths, _ in processes if reason for path in paths]
        broken = [name for _, _, names in processes for name in names]
        message = f'{reason} at iteration {runner.iter + 1} ({_some(images)})'
        if self._failed + 1 >= self.tries or broken:
            self._end(runner, f'{message}; {broken[0]} contains NaN or infinity, too' if broken else message)
        if runner.optim_wrapper.should_update():
            self._failed += 1
            self._reason = ''
            runner.logger.warning(f'{message}: update skipped, {self._failed} in a row; {self.tries} end the training')

    def _end(self, runner: Runner, message: str) -> NoReturn:
        self._ending, step = True, runner.iter + 1
        name = DIVERGED_NAME.format(step)
        try:
            meta = dict(epoch=runner.epoch, iter=step)
            runner.save_checkpoint(runner.work_dir, name, meta=meta, by_epoch=False)
            saved = f'its state is in {Path(runner.work_dir) / name}'
        except UsageError as error:
            saved = f'its state could not be saved ({error})'
        raise UsageError(
            f'{message}: the training ended, {saved}; check these images, lower the learning rate, clip gradients '
            f'(optim_wrapper.clip_grad) or switch off mixed precision (--no-amp), then continue from the last '
            f'checkpoint with --resume, or start anew'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Refuse to save weights that contain NaN or infinity."""
        if not self._ending and (names := non_finite_names(checkpoint['state_dict'])):
            raise UsageError(
                f'the checkpoint of iteration {runner.iter + 1} was not saved: {names[0]} contains NaN or infinity; '
                f'lower the learning rate and continue from the last checkpoint with --resume'
            )


def _norm(wrapper: OptimWrapper, params: Sequence[torch.nn.Parameter]) -> float:
    """Return the norm of all gradients; the one that clipping has just logged, if gradients are clipped."""
    sharded = any(hasattr(p.grad, 'full_tensor') for p in params)  # by FSDP: mmengine logs the norm of a shard
    if wrapper.clip_grad_kwargs and wrapper.grad_name == 'grad_norm' and not sharded:
        return float(wrapper.message_hub.get_scalar('train/grad_norm').current())
    norm = torch.nn.utils.clip_grad_norm_(params, math.inf)  # clips nothing
    return float(norm.full_tensor() if hasattr(norm, 'full_tensor') else norm)


def _samples(data_batch: object) -> Sequence[Any]:
    return data_batch.get('data_samples') or () if isinstance(data_batch, Mapping) else ()


def _images(data_batch: object) -> list[str]:
    return [str(sample.get('img_path')) for sample in _samples(data_batch)]


def _some(paths: Sequence[str]) -> str:
    return ', '.join(paths[:SHOWN]) + (f' and {len(paths) - SHOWN} more' if len(paths) > SHOWN else '')


def _all_ignored(data_batch: object, runner: Runner) -> bool:
    """Tell whether every pixel of a batch, still on the CPU, is ignored."""
    index = getattr(runner.train_dataloader.dataset, 'ignore_index', 255)
    labels = [sample.gt_sem_seg.data for sample in _samples(data_batch) if 'gt_sem_seg' in sample]
    # a few pixels settle it for nearly every batch
    return bool(labels) and not any((m[..., ::16, ::16] != index).any() or (m != index).any() for m in labels)
