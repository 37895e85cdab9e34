"""Resume a training from a checkpoint, and follow and log what its config has changed since.

Weights, the optimiser's moments and the position in the data come from the checkpoint. The length of the training,
learning rates, schedules and the optimiser's settings come from the config; where they differ from the checkpoint's,
learning rates become what they would be if the config had held from the first iteration on.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmseg_volo.engine.checkpoint import last_checkpoint, newest_checkpoint
from mmseg_volo.engine.checkpoint_content import ACCUMULATED
from mmseg_volo.engine.hooks.early_stopping import EARLY_STOPPING_KEY
from mmseg_volo.engine.loop import SAMPLES_DRAWN
from mmseg_volo.engine.restore import check_progress, states_of
from mmseg_volo.engine.run_id import RUN, refuse_other_run
from mmseg_volo.errors import UsageError
from mmseg_volo.io.model_spec import meta_of
from mmseg_volo.io.weights import read_source

LENGTH = 'length'  # meta[LENGTH]: of the training, in weight updates or epochs
FORMER = 'former_lengths'  # meta[FORMER]: earlier lengths; schedules of the config that end there end at LENGTH
OPTIMISER = 'optimiser'  # meta[OPTIMISER]: its class name


def length_of(cfg: Mapping[str, Any]) -> int | None:
    """Return the length of a config's training in epochs or weight updates; None if the config does not set it."""
    loop = cfg.get('train_cfg') or {}
    accumulated = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    length: int | None = loop.get('max_epochs')
    if 'max_epochs' not in loop and 'max_iters' in loop:
        length = loop['max_iters'] // accumulated
    return length


def prepare_resume(runner: Runner) -> None:
    """Find the checkpoint to resume, take its seed and position in the data, and adapt the schedules to a new length.

    Raises:
        UsageError: no checkpoint is intact, it holds no training, or another one than the work dir.
    """
    named, work_dir = runner._load_from is not None, Path(runner.work_dir)  # by `load_from`
    if not named:
        newest, skipped = newest_checkpoint(work_dir)
        for reason in skipped:
            runner.logger.warning(reason)
        if newest is None:
            runner.logger.warning(f'--resume: {runner.work_dir} has no checkpoint, so the training starts anew')
            runner._resume = False
            return
        runner._load_from = str(newest)
    checkpoint = read_source(runner._load_from)
    check_progress(checkpoint, runner._load_from)
    meta = meta_of(checkpoint)
    if named:  # a branch of that training keeps its own id
        refuse_other_run(meta.get(RUN), runner._load_from, last_checkpoint(work_dir))
    else:
        runner.run_id = meta.get(RUN) or runner.run_id
    runner.draws = meta.get(SAMPLES_DRAWN) or 0
    if not runner.draws and meta['iter'] and (runner.cfg.get('train_cfg') or {}).get('type') == 'SegTrainLoop':
        runner.logger.warning(
            f'{runner._load_from} does not hold the position in the data: samples are drawn from the first on'
        )
    if meta.get('seed') is not None:
        asked = runner._randomness_cfg.get('seed')
        if asked not in (None, meta['seed']):
            runner.logger.warning(
                f'randomness.seed={asked} has no effect: the training continues with its own seed, {meta["seed"]}'
            )
        runner._randomness_cfg.update(seed=meta['seed'])
        runner.set_randomness(**runner._randomness_cfg)
    with states_of(runner._load_from):
        _follow_length(runner, meta)


def _follow_length(runner: Runner, meta: Mapping[str, Any]) -> None:
    """Move the end of schedules that ended with the training to its new end."""
    new, old = runner.length, meta.get(LENGTH)
    if new is None or old is None:
        return
    former = {old, *meta.get(FORMER, ())} - {new}
    runner.former_lengths = sorted(former)
    schedules = runner.param_schedulers
    for schedule in schedules if isinstance(schedules, list) else [schedules]:
        counts_epochs = isinstance(schedule, dict) and schedule.get('by_epoch', True)
        if isinstance(schedule, dict) and counts_epochs == ('max_epochs' in runner.cfg.train_cfg):
            if schedule.get('end') in former:
                schedule['end'] = max(new, schedule.get('begin', 0) + 1)


def follow_config(runner: Runner, checkpoint: dict[str, Any], source: str) -> None:
    """Write the settings that the config has changed into a checkpoint, and log them.

    Args:
        runner: set up to train, at its first iteration.
        checkpoint: to resume from; changed in place.
        source: its origin, for messages.

    Raises:
        UsageError: its training cannot be resumed with this config.
    """
    meta = checkpoint['meta']
    _check_classes(runner, meta, source)
    lines, (done, whole, unit, key) = [*_length_changes(runner, meta, checkpoint)], _progress(runner, meta)
    if done >= whole:
        lines.append(
            f'all {whole} {unit} are done, so nothing is trained: lengthen the training by --cfg-options '
            f'train_cfg.{key}=N, or by --epochs N with --data'
        )
    elif 'optimizer' in checkpoint and _optimiser_of(runner) is not None:
        lines += _follow_optimiser(runner, checkpoint, source)
    for line in lines:
        runner.logger.info(line)


def _check_classes(runner: Runner, meta: Mapping[str, Any], source: str) -> None:
    now = (getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}).get('classes')
    then = (meta.get('dataset_meta') or {}).get('classes')
    if now and then and [*now] != [*then]:
        raise UsageError(
            f'{source} was trained on other classes ({", ".join([*then][:3])}, ...) than the config has '
            f'({", ".join([*now][:3])}, ...): name another --work-dir, or start from its weights with load_from and '
            f'without --resume'
        )


def _length_changes(runner: Runner, meta: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence if the length of the training has changed; let early stopping wait anew."""
    new, old, (_, whole, unit, key) = runner.length, meta.get(LENGTH), _progress(runner, meta)
    if new and old and new != old:
        times = meta.get(ACCUMULATED, 1) if key == 'max_iters' else 1
        yield f'the training is {"lengthened" if new > old else "shortened"} from {old * times} to {whole} {unit}'
        info = checkpoint['message_hub'].get('runtime_info', {})
        if EARLY_STOPPING_KEY in info:  # or the training would end at the next validation
            info[EARLY_STOPPING_KEY] = (0, info[EARLY_STOPPING_KEY][1])


def _progress(runner: Runner, meta: Mapping[str, Any]) -> tuple[int, int, str, str]:
    """Return the progress, the length, their unit, and the key of `train_cfg` that sets the length."""
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        return meta['epoch'], loop.max_epochs, 'epochs', 'max_epochs'
    return meta['iter'], loop.max_iters, 'iterations', 'max_iters'


def _follow_optimiser(runner: Runner, checkpoint: dict[str, Any], source: str) -> list[str]:
    """Write the config's settings of the optimiser and its schedules into a checkpoint.

    Returns:
        A sentence for each change.

    Raises:
        UsageError: its optimiser is another one, or trained other groups of parameters.
    """
    optimiser, saved = runner.optim_wrapper.optimizer, checkpoint['optimizer']
    kind, groups = type(optimiser).__name__, saved['param_groups']
    before = checkpoint['meta'].get(OPTIMISER) or kind
    sizes = [[len(group['params']) for group in side] for side in (groups, optimiser.param_groups)]
    if kind != before or sizes[0] != sizes[1]:
        difference = f'by {before}, but the config has {kind}'
        if kind == before:
            difference = 'with other groups of parameters than those of the config'
        raise UsageError(
            f'{source} was trained {difference}: resume it with its own optim_wrapper, or start from its weights with '
            f'load_from and without --resume'
        )
    lines = [*_settings(optimiser, groups)]
    rates = [[group.get('initial_lr', group['lr']) for group in side] for side in (groups, optimiser.param_groups)]
    if rates[0] != rates[1]:
        new, old = (max(values) for values in reversed(rates))
        lines.append(f'the learning rate of the config is {new:.4g}, that of the checkpoint {old:.4g}')
    if rates[0] != rates[1] or _have_changed(runner.param_schedulers, checkpoint.get('param_schedulers')):
        lines.append(_follow_schedules(runner, checkpoint))
    return lines


def _settings(optimiser: torch.optim.Optimizer, groups: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Write the optimiser's constructor arguments into `groups` of a checkpoint; other keys are its state."""
    arguments = {*inspect.signature(type(optimiser)).parameters, 'adamw_ratio'} - {'lr', 'params'}
    for key in sorted(arguments):
        pairs = [
            (mine[key], its[key])
            for mine, its in zip(optimiser.param_groups, groups, strict=True)
            if key in mine and key in its and f'initial_{key}' not in its and mine[key] != its[key]
        ]
        if pairs:
            name = 'adamw_lr / lr' if key == 'adamw_ratio' else key
            yield f'{name} of the config is {pairs[0][0]}, that of the checkpoint {pairs[0][1]}'
        for mine, its in zip(optimiser.param_groups, groups, strict=True):
            if pairs and key in mine:
                its[key] = mine[key]


def _have_changed(schedules: Sequence[_ParamScheduler] | None, saved: Sequence[Mapping[str, Any]] | None) -> bool:
    """Tell by their constructor arguments whether schedules differ from those of a checkpoint."""
    if saved is None or len(schedules or ()) != len(saved):
        return saved is not None
    for schedule, state in zip(schedules or (), saved, strict=True):
        signatures = [inspect.signature(vars(base).get('__init__', base)) for base in type(schedule).__mro__[:-1]]
        arguments = {name for signature in signatures for name in signature.parameters}
        mine = vars(schedule)
        if any(mine[key] != state[key] for key in (arguments - {'last_step', 'verbose'}) & mine.keys() & state.keys()):
            return True
    return False


def _follow_schedules(runner: Runner, checkpoint: dict[str, Any]) -> str:
    """Set learning rates to what they would be here if the config had held from the first iteration on."""
    meta, schedules = checkpoint['meta'], runner.param_schedulers or []
    if any(getattr(schedule, 'need_val_args', False) for schedule in schedules):
        raise UsageError(
            'learning rates that follow the score (ReduceOnPlateau) cannot be recomputed: resume with the former '
            'optim_wrapper, param_scheduler and length of the training'
        )
    before = max(group['lr'] for group in checkpoint['optimizer']['param_groups'])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch warns of schedule steps without optimiser steps
        _step(schedules, meta['iter'] // meta.get(ACCUMULATED, 1), meta['epoch'])
    wrapper, saved = runner.optim_wrapper, checkpoint['optimizer']
    names = {'lr', *(schedule.param_name for schedule in schedules)}
    scheduled = names | {f'initial_{name}' for name in names}
    for mine, its in zip(wrapper.optimizer.param_groups, saved['param_groups'], strict=True):
        its.update({key: value for key, value in mine.items() if key in scheduled})
    if getattr(wrapper, 'base_param_settings', None) is not None:
        saved['base_param_settings'] = wrapper.base_param_settings
    if schedules:
        checkpoint['param_schedulers'] = [schedule.state_dict() for schedule in schedules]
    after = max(group['lr'] for group in saved['param_groups'])
    return f"learning rates follow the config's schedule from here: {after:.4g} next, instead of {before:.4g}"


def _step(schedules: Sequence[_ParamScheduler], updates: int, epochs: int) -> None:
    """Step new schedules as often as those of the training have been."""
    by_update, by_epoch = ([s for s in schedules if s.by_epoch == kind] for kind in (False, True))
    for epoch in range(max(epochs, 1)):
        for _ in range(updates * epoch // max(epochs, 1), updates * (epoch + 1) // max(epochs, 1)):
            for schedule in by_update:
                schedule.step()
        for schedule in by_epoch if epochs else ():
            schedule.step()


def resume_facts(runner: Runner) -> dict[str, Any]:
    """Return the facts of a training by which a resume notices changes of the config."""
    return {
        RUN: runner.run_id,
        LENGTH: runner.length,
        FORMER: [*runner.former_lengths],
        OPTIMISER: type(_optimiser_of(runner)).__name__,
    }


def _optimiser_of(runner: Runner) -> torch.optim.Optimizer | None:
    """Return the optimiser; None if a training has several."""
    optimiser = getattr(runner.optim_wrapper, 'optimizer', None)
    return optimiser if isinstance(optimiser, torch.optim.Optimizer) else None
