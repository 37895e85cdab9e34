"""A training whose loss or gradients are no longer numbers ends, and nothing good is written over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmseg_volo.errors import UsageError
from mmseg_volo.io.weights import non_finite_names

SHOWN = 8  # images that a message names
DIVERGED_NAME = 'diverged_iter_{}.pth'  # no name that `--resume` takes up


@HOOKS.register_module(name=['NonFiniteGuardHook', 'FiniteHook'])
class NonFiniteGuardHook(Hook):
    """Ends a training at a loss or a gradient that is not finite, names the iteration and its images, and keeps the
    state in `diverged_iter_N.pth`. An update with such gradients is not made, so that the weights there are the last
    good ones. Weights that are not finite are in no checkpoint: the one before stays.

    Where float16 scales the loss (`--amp` on older GPUs), an update is now and then left out until the scale fits: only
    losses count there. Several processes end together. It waits for the GPU once per update, before the optimiser,
    unless gradients are clipped, whose norm mmengine waits for itself.

    Args:
        tries: the training ends at this many updates in a row that are not finite; those before are left out with a
            warning. Running statistics of a norm that are not finite end it at once: no later update would heal them.
    """

    priority = 'HIGHEST'  # listed first, it sees the loss of this process alone, and nothing is saved before it

    def __init__(self, tries: int = 1):
        if tries < 1:
            raise ValueError(f'NonFiniteGuardHook: tries must be 1 or more, got {tries}')
        self.tries = tries
        self._failed = 0  # updates in a row
        self._reason = ''  # what is not finite in this update
        self._ending = False
        self._warned = False

    def before_train(self, runner: Runner) -> None:
        """From here on gradients are looked at before each update."""
        wrapper = runner.optim_wrapper
        scaler = getattr(wrapper, 'loss_scaler', None)
        if not isinstance(wrapper, OptimWrapper) or (scaler is not None and scaler.is_enabled()):
            return

        def leave_out(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            params = [p for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
            norm = _norm(wrapper, params)
            if not math.isfinite(norm):
                self._reason = self._reason or f'the norm of the gradients is {norm}'
                for p in params:
                    p.grad = None

        wrapper.optimizer.register_step_pre_hook(leave_out)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """A batch that teaches nothing is said, once."""
        if not self._warned and _all_ignored(data_batch, runner):
            self._warned = True
            runner.logger.warning(
                f'iteration {runner.iter + 1}: all pixels of the batch are ignored, so that it teaches nothing '
                f'({_some(_images(data_batch))}); this is said once, mmseg-volo check CONFIG finds such labels'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Counts this update, or ends the training."""
        loss = torch.as_tensor((outputs or {}).get('loss', 0.0)).item()
        if not math.isfinite(loss):
            self._reason = f'the loss is {loss}'
        failing = torch.tensor(int(bool(self._reason)))
        all_reduce(failing, 'max')
        if failing:
            self._fail(runner, data_batch)
        elif runner.optim_wrapper.should_update():
            self._failed = 0

    def _fail(self, runner: Runner, data_batch: Any) -> None:
        every = all_gather_object(
            (self._reason, _images(data_batch), non_finite_names(dict(runner.model.named_buffers())))
        )
        found = [part for part in every if part[0]]
        said = f'{found[0][0]} at iteration {runner.iter + 1} ({_some([path for part in found for path in part[1]])})'
        broken = [name for part in every for name in part[2]]
        if self._failed + 1 >= self.tries or broken:
            self._end(runner, f'{said}; {broken[0]} is not finite either' if broken else said)
        if runner.optim_wrapper.should_update():
            self._failed += 1
            self._reason = ''
            runner.logger.warning(f'{said}: this update is left out, {self._failed} of less than {self.tries} in a row')

    def _end(self, runner: Runner, said: str) -> None:
        self._ending, step = True, runner.iter + 1
        name = DIVERGED_NAME.format(step)
        try:
            meta = dict(epoch=runner.epoch, iter=step)
            runner.save_checkpoint(runner.work_dir, name, meta=meta, by_epoch=False)
            kept = f'its state is kept in {Path(runner.work_dir) / name}'
        except UsageError as error:
            kept = f'its state could not be kept, as {error}'
        raise UsageError(
            f'{said}: the training ended and {kept}; see whether these images are sound, lower the learning rate, clip '
            f'gradients (optim_wrapper.clip_grad) or leave out mixed precision (--no-amp), then go on from the last '
            f'checkpoint with --resume, or anew'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Weights that are not finite must not take the place of good ones."""
        if not self._ending and (names := non_finite_names(checkpoint['state_dict'])):
            raise UsageError(
                f'{names[0]} is not finite before iteration {runner.iter + 1} is saved, so it is not, and the '
                f'checkpoints before it stay: lower the learning rate and go on from the last one with --resume'
            )


def _norm(wrapper: OptimWrapper, params: Sequence[torch.nn.Parameter]) -> float:
    """Of all gradients; the one that clipping has just logged where there is one."""
    split = any(hasattr(p.grad, 'full_tensor') for p in params)  # by FSDP: mmengine logs the norm of a part
    if wrapper.clip_grad_kwargs and wrapper.grad_name == 'grad_norm' and not split:
        return float(wrapper.message_hub.get_scalar('train/grad_norm').current())
    norm = torch.nn.utils.clip_grad_norm_(params, math.inf)  # which multiplies by one
    return float(norm.full_tensor() if hasattr(norm, 'full_tensor') else norm)


def _samples(data_batch: Any) -> Sequence[Any]:
    return data_batch.get('data_samples') or () if isinstance(data_batch, Mapping) else ()


def _images(data_batch: Any) -> list[str]:
    return [str(sample.get('img_path')) for sample in _samples(data_batch)]


def _some(paths: Sequence[str]) -> str:
    return ', '.join(paths[:SHOWN]) + (f' and {len(paths) - SHOWN} more' if len(paths) > SHOWN else '')


def _all_ignored(data_batch: Any, runner: Runner) -> bool:
    """Whether no pixel of a batch, still on the CPU, has a class."""
    index = getattr(runner.train_dataloader.dataset, 'ignore_index', 255)
    labels = [sample.gt_sem_seg.data for sample in _samples(data_batch) if 'gt_sem_seg' in sample]
    # a few pixels show it of nearly every batch
    return bool(labels) and not any((m[..., ::16, ::16] != index).any() or (m != index).any() for m in labels)
