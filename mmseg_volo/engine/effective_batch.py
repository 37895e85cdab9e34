"""How many images an update of the weights sees, and the recipe kept when a machine takes fewer at once."""

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
    """What an update of the weights sees."""

    processes: int
    images: int  # per process and iteration
    accumulated: int = 1  # iterations per update
    recipe: int | None = None  # images per update that the config's learning rate is made for
    scaled: bool = False  # whether the learning rate is scaled to the effective batch

    @property
    def size(self) -> int:
        """Images per update."""
        return self.processes * self.images * self.accumulated

    @property
    def lr_factor(self) -> float:
        """Of the learning rate: linear in the batch (arXiv 1706.02677) where it is scaled, else 1."""
        return self.size / self.recipe if self.scaled and self.recipe else 1.0

    def __str__(self) -> str:
        parts = [
            f'{self.processes} process{"es" * (self.processes > 1)}',
            f'{self.images} image{"s" * (self.images > 1)}',
        ]
        if self.accumulated > 1:
            parts.append(f'{self.accumulated} accumulated')
        text = f'effective batch {self.size} = {" x ".join(parts)}'
        if self.recipe:
            factor = f', learning rate x{self.lr_factor:g}' if self.scaled else ''
            text += f' (recipe: {self.recipe}{factor})'
        return text

    def way_out(self) -> str:
        """What to do where the effective batch is not the recipe's; empty where it is, or where the rate is scaled."""
        if not self.recipe or self.scaled or self.size == self.recipe:
            return ''
        share, left = divmod(self.recipe, self.processes)
        scale = 'scale the learning rate by --auto-scale-lr'
        if left:
            return f'{self.recipe} does not divide into {self.processes} processes: start another number, or {scale}'
        images = max(n for n in range(1, min(share, self.images) + 1) if share % n == 0)
        keep = [
            f'--accumulate {share // images}' if share > images else 'leaving --accumulate out' * (self.accumulated > 1)
        ]
        if images != self.images:
            keep.append(f'--cfg-options train_dataloader.batch_size={images}')
        return f'{" with ".join(filter(None, keep))} keeps the recipe, or {scale}'


def check_norms(model: nn.Module, batch: EffectiveBatch) -> None:
    """BatchNorm behind a pooling to one pixel (UPerNet's) has one value per image: torch would end the first iteration.

    Raises:
        UsageError: there is such a norm, and it sees one image only.
    """
    for name, part in model.named_modules():
        if not (isinstance(part, nn.Sequential) and len(part) and isinstance(part[0], nn.AdaptiveAvgPool2d)):
            continue
        for norm in part.modules():
            images = batch.images * (batch.processes if isinstance(norm, nn.SyncBatchNorm) else 1)
            if isinstance(norm, _BatchNorm) and part[0].output_size in (1, (1, 1)) and images == 1:
                raise UsageError(
                    f'{name} pools to one pixel, whose BatchNorm needs 2 images at once, and gets 1: '
                    f'--cfg-options train_dataloader.batch_size=2, or a norm without statistics of the batch: '
                    f'--cfg-options model.decode_head.norm_cfg.type=GN model.decode_head.norm_cfg.num_groups=32'
                )


def set_batch(cfg: Config, accumulated: int, scale_lr: bool) -> None:
    """Writes `--accumulate` and `--auto-scale-lr` into a config.

    Args:
        cfg: of a training, with its launcher.
        accumulated: iterations per update, see `accumulate`.
        scale_lr: whether to scale the learning rate to the effective batch.

    Raises:
        UsageError: the effective batch is not the recipe's though gradients are accumulated, or the recipe's is not
            known though the learning rate is to be scaled to it.
    """
    if accumulated < 1:
        raise UsageError(f'--accumulate is the number of iterations per update: expected 1 or more, got {accumulated}')
    if accumulated > 1:
        accumulate(cfg, accumulated)
    scaling = cfg.get('auto_scale_lr') or {}
    recipe, scaled = scaling.get('base_batch_size'), scale_lr or scaling.get('enable', False)
    if scaled and not recipe:
        raise UsageError(
            '--auto-scale-lr: the config does not say for which batch its learning rate is made; '
            'add auto_scale_lr = dict(base_batch_size=N)'
        )
    batch = EffectiveBatch(
        world_size_of(cfg.get('launcher') or 'none'),
        cfg.train_dataloader.get('batch_size') or 1,
        accumulated,
        recipe,
        scaled,
    )
    if accumulated > 1 and batch.way_out():
        raise UsageError(f'{batch}: {batch.way_out()}')
    if scaled:
        cfg.auto_scale_lr = dict(enable=True, base_batch_size=recipe)


def accumulate(cfg: Config, count: int) -> None:
    """Adds up the gradients of `count` iterations before each update of the weights.

    The updates stay the recipe's, in number and in learning rate: `max_iters` and the intervals of validation and
    checkpoints, which count iterations, grow by `count`; schedules and averaged weights go on once per update.

    Raises:
        UsageError: the config accumulates already, or its training does not count iterations.
    """
    if cfg.optim_wrapper.get('accumulative_counts', 1) != 1:
        raise UsageError(
            '--accumulate: the config sets optim_wrapper.accumulative_counts itself, give only one of them'
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
    """mmengine's hook, which steps the schedules, at the iterations that update the weights."""

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, *args, **kwargs)


@HOOKS.register_module()
class AveragePerUpdateHook(EMAHook):
    """mmengine's EMAHook at the iterations that update the weights. The arguments are those of `EMAHook`."""

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, *args, **kwargs)
