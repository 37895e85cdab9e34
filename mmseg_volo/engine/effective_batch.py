"""Compute the images per weight update, and accumulate gradients to keep a recipe's batch on a smaller machine."""

from __future__ import annotations

from dataclasses import dataclass

from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook, ParamSchedulerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_volo.engine.distributed import world_size_of
from mmseg_volo.errors import UsageError


@dataclass(frozen=True)
class EffectiveBatch:
    """Number of images in one update of the weights."""

    processes: int
    images: int  # per process and iteration
    accumulated: int = 1  # iterations per update
    recipe: int | None = None  # images per update that the config's learning rate was chosen for
    scaled: bool = False  # whether the learning rate is scaled to the effective batch

    @property
    def size(self) -> int:
        """Return the images per update."""
        return self.processes * self.images * self.accumulated

    @property
    def lr_factor(self) -> float:
        """Return the factor of the learning rate: linear in the batch (arXiv 1706.02677) if it is scaled, else 1."""
        return self.size / self.recipe if self.scaled and self.recipe else 1.0

    def __str__(self) -> str:
        factors = [
            f'{self.processes} process{"es" * (self.processes > 1)}',
            f'{self.images} image{"s" * (self.images > 1)}',
        ]
        if self.accumulated > 1:
            factors.append(f'{self.accumulated} accumulated')
        text = f'effective batch {self.size} = {" x ".join(factors)}'
        if self.recipe:
            scaling = f', learning rate x{self.lr_factor:g}' if self.scaled else ''
            text += f' (recipe: {self.recipe}{scaling})'
        return text

    def suggestion(self) -> str:
        """Return how to get the recipe's effective batch; empty if it has that size, or if the rate is scaled."""
        if not self.recipe or self.scaled or self.size == self.recipe:
            return ''
        share, left = divmod(self.recipe, self.processes)
        scale = 'scale the learning rate by --auto-scale-lr'
        if left:
            uneven = f'{self.recipe} images cannot be divided evenly among {self.processes} processes'
            return f'{uneven}: start another number, or {scale}'
        images = max(n for n in range(1, min(share, self.images) + 1) if share % n == 0)
        keep = [
            f'--accumulate {share // images}' if share > images else 'leaving --accumulate out' * (self.accumulated > 1)
        ]
        if images != self.images:
            keep.append(f'--cfg-options train_dataloader.batch_size={images}')
        return f'{" with ".join(filter(None, keep))} keeps the recipe, or {scale}'


def batch_of(runner: Runner) -> EffectiveBatch:
    """Return the effective batch of a runner that is set up to train."""
    scaling = runner.auto_scale_lr or {}
    return EffectiveBatch(
        runner.world_size,
        runner.train_dataloader.batch_size or 1,
        getattr(runner.optim_wrapper, '_accumulative_counts', 1),
        scaling.get('base_batch_size'),
        scaling.get('enable', False),
    )


def check_norms(model: nn.Module, batch: EffectiveBatch) -> None:
    """Refuse a BatchNorm after pooling to one pixel (UPerNet's) in a batch of one image, where torch would fail.

    Raises:
        UsageError: there is such a norm, and it gets a single image.
    """
    for name, module in model.named_modules():
        if not (isinstance(module, nn.Sequential) and len(module) and isinstance(module[0], nn.AdaptiveAvgPool2d)):
            continue
        for norm in module.modules():
            images = batch.images * (batch.processes if isinstance(norm, nn.SyncBatchNorm) else 1)
            if isinstance(norm, _BatchNorm) and module[0].output_size in (1, (1, 1)) and images == 1:
                raise UsageError(
                    f'{name} pools to one pixel, where BatchNorm needs at least 2 images at once, got 1: '
                    f'--cfg-options train_dataloader.batch_size=2, or a norm without batch statistics: '
                    f'--cfg-options model.decode_head.norm_cfg.type=GN model.decode_head.norm_cfg.num_groups=32'
                )


def set_batch(cfg: Config, accumulated: int, scale_lr: bool) -> None:
    """Write `--accumulate` and `--auto-scale-lr` into a config.

    Args:
        cfg: of a training, with its launcher; changed in place.
        accumulated: iterations per update, see `accumulate`.
        scale_lr: whether to scale the learning rate to the effective batch.

    Raises:
        UsageError: gradients are accumulated to another batch than the recipe's, or the learning rate is to be scaled
            and the config does not name the recipe's batch.
    """
    if accumulated < 1:
        raise UsageError(f'--accumulate is the number of iterations per update: expected 1 or more, got {accumulated}')
    if accumulated > 1:
        accumulate(cfg, accumulated)
    scaling = cfg.get('auto_scale_lr') or {}
    recipe, scaled = scaling.get('base_batch_size'), scale_lr or scaling.get('enable', False)
    if scaled and not recipe:
        raise UsageError(
            '--auto-scale-lr: the config does not state the batch size of its learning rate; '
            'add auto_scale_lr = dict(base_batch_size=N)'
        )
    batch = EffectiveBatch(
        world_size_of(cfg.get('launcher') or 'none'),
        cfg.train_dataloader.get('batch_size') or 1,
        accumulated,
        recipe,
        scaled,
    )
    if accumulated > 1 and (suggestion := batch.suggestion()):
        raise UsageError(f'{batch}: {suggestion}')
    if scaled:
        cfg.auto_scale_lr = dict(enable=True, base_batch_size=recipe)


def accumulate(cfg: Config, count: int) -> None:
    """Sum the gradients of `count` iterations before each update of the weights.

    Number and learning rate of the updates stay the recipe's: `max_iters` and the intervals of validation and
    checkpoints, which count iterations, are multiplied by `count`; schedules and averaged weights step once per update.

    Args:
        cfg: of a training; changed in place.
        count: iterations per update.

    Raises:
        UsageError: the config accumulates gradients itself, or its training does not count iterations.
    """
    if cfg.optim_wrapper.get('accumulative_counts', 1) != 1:
        raise UsageError(
            '--accumulate: the config sets optim_wrapper.accumulative_counts itself: use only one of the two'
        )
    loop = cfg.train_cfg
    if 'max_iters' not in loop:
        raise UsageError('--accumulate needs a training that counts iterations, train_cfg.type SegTrainLoop')
    cfg.optim_wrapper.accumulative_counts = count
    loop.max_iters *= count
    loop.val_interval = loop.get('val_interval', 1000) * count  # mmengine's default
    if 'val_begin' in loop:
        loop.val_begin *= count
    if loop.get('dynamic_intervals'):
        loop.dynamic_intervals = [(start * count, interval * count) for start, interval in loop.dynamic_intervals]
    hooks = cfg.get('default_hooks') or ConfigDict()
    checkpoint = hooks.get('checkpoint') or {}
    for key in ('interval', 'save_begin'):
        if checkpoint.get(key, 0) > 0:
            checkpoint[key] *= count
    hooks.param_scheduler = dict(type='SchedulePerUpdateHook')
    cfg.default_hooks = hooks
    for hook in cfg.get('custom_hooks') or []:
        if hook.type == 'EMAHook':
            hook.type = 'AveragePerUpdateHook'
            hook.begin_iter = hook.get('begin_iter', 0) * count


@HOOKS.register_module()
class SchedulePerUpdateHook(ParamSchedulerHook):
    """Step the schedules at the iterations that update the weights."""

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, *args, **kwargs)


@HOOKS.register_module()
class AveragePerUpdateHook(EMAHook):
    """Average the weights at the iterations that update them. The arguments are those of mmengine's `EMAHook`."""

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, *args, **kwargs)
