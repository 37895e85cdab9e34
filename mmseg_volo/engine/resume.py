"""Which checkpoint a training goes on from, and what is then the config's: what it asks for is done, and said.

Weights, the optimiser's moments and the place in the data are the checkpoint's. How long the training is, learning
rates, schedules and the optimiser's settings are the config's; where they are other ones than those the checkpoint was
trained with, learning rates become what they would be if the config had held from the first iteration on.
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

LENGTH = 'length'  # meta[LENGTH]: of the training, in updates of the weights or in epochs
FORMER = 'former_lengths'  # meta[FORMER]: those that it had; schedules of the config that end there end at LENGTH
OPTIMISER = 'optimiser'  # meta[OPTIMISER]: its type


def length_of(cfg: Mapping[str, Any]) -> int | None:
    """How long the training of a config is, in epochs or updates of the weights; None where it does not say."""
    loop = cfg.get('train_cfg') or {}
    if 'max_epochs' in loop:
        return loop['max_epochs']
    updates = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    return loop['max_iters'] // updates if 'max_iters' in loop else None


def prepare_resume(runner: Runner) -> None:
    """Finds what a training goes on from, its seed and its place in the data, and lengthens its schedules.

    Raises:
        UsageError: there is none that is whole, it holds no training, or another one than the work dir.
    """
    given, work_dir = runner._load_from is not None, Path(runner.work_dir)
    if not given:
        found, passed_over = newest_checkpoint(work_dir)
        for reason in passed_over:
            runner.logger.warning(reason)
        if found is None:
            runner.logger.warning(f'--resume: {runner.work_dir} has no checkpoint, so the training starts anew')
            runner._resume = False
            return
        runner._load_from = str(found)
    checkpoint = read_source(runner._load_from)
    check_progress(checkpoint, runner._load_from)
    meta = meta_of(checkpoint)
    if given:  # a branch of that training has a name of its own
        refuse_other_run(meta.get(RUN), runner._load_from, last_checkpoint(work_dir))
    else:
        runner.run_id = meta.get(RUN) or runner.run_id
    runner.draws = meta.get(SAMPLES_DRAWN) or 0
    if not runner.draws and meta['iter'] and (runner.cfg.get('train_cfg') or {}).get('type') == 'SegTrainLoop':
        runner.logger.warning(
            f'{runner._load_from} does not say which samples were drawn: they are drawn from the first on'
        )
    if meta.get('seed') is not None:
        asked = runner._randomness_cfg.get('seed')
        if asked not in (None, meta['seed']):
            runner.logger.warning(
                f'randomness.seed={asked} has no effect: the training goes on with {meta["seed"]}, with which it began'
            )
        runner._randomness_cfg.update(seed=meta['seed'])
        runner.set_randomness(**runner._randomness_cfg)
    with states_of(runner._load_from):
        _follow_length(runner, meta)


def _follow_length(runner: Runner, meta: Mapping[str, Any]) -> None:
    """Schedules that end where the training ended, end where it ends now."""
    new, old = runner.length, meta.get(LENGTH)
    if new is None or old is None:
        return
    former = {old, *meta.get(FORMER, ())} - {new}
    runner.former_lengths = sorted(former)
    given = runner.param_schedulers
    for schedule in given if isinstance(given, list) else [given]:
        counts_epochs = isinstance(schedule, dict) and schedule.get('by_epoch', True)
        if isinstance(schedule, dict) and counts_epochs == ('max_epochs' in runner.cfg.train_cfg):
            if schedule.get('end') in former:
                schedule['end'] = max(new, schedule.get('begin', 0) + 1)


def follow_config(runner: Runner, checkpoint: dict[str, Any], source: str) -> None:
    """Writes what the config says otherwise than a checkpoint into that checkpoint, and says it.

    Args:
        runner: set up to train, at its first iteration.
        checkpoint: to be resumed from; changed.
        source: where it came from, for messages.

    Raises:
        UsageError: it comes from a training that cannot go on with this config.
    """
    meta = checkpoint['meta']
    _check_classes(runner, meta, source)
    lines, (done, whole, unit, key) = [*_length_changes(runner, meta, checkpoint)], _progress(runner, meta)
    if done >= whole:
        lines.append(
            f'all {whole} {unit} are done, so nothing is trained: --cfg-options train_cfg.{key}=N, or --epochs N with '
            f'--data, makes the training longer'
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
            f'({", ".join([*now][:3])}, ...): name another --work-dir, or begin from its weights, with load_from and '
            f'without --resume'
        )


def _length_changes(runner: Runner, meta: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> Iterator[str]:
    """What a training of another length is told."""
    new, old, (_, whole, unit, key) = runner.length, meta.get(LENGTH), _progress(runner, meta)
    if new and old and new != old:
        times = meta.get(ACCUMULATED, 1) if key == 'max_iters' else 1
        yield f'the training is {"lengthened" if new > old else "shortened"} from {old * times} to {whole} {unit}'
        info = checkpoint['message_hub'].get('runtime_info', {})
        if EARLY_STOPPING_KEY in info:  # or it would end at the next validation
            info[EARLY_STOPPING_KEY] = (0, info[EARLY_STOPPING_KEY][1])


def _progress(runner: Runner, meta: Mapping[str, Any]) -> tuple[int, int, str, str]:
    """How much is done, of how much, in what, and the key of `train_cfg` that says so."""
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        return meta['epoch'], loop.max_epochs, 'epochs', 'max_epochs'
    return meta['iter'], loop.max_iters, 'iterations', 'max_iters'


def _follow_optimiser(runner: Runner, checkpoint: dict[str, Any], source: str) -> list[str]:
    """Writes the config's settings of the optimiser and its schedules into a checkpoint.

    Returns:
        What is other than in the checkpoint.

    Raises:
        UsageError: its optimiser is another one, or trained other groups of parameters.
    """
    optimiser, saved = runner.optim_wrapper.optimizer, checkpoint['optimizer']
    kind, groups = type(optimiser).__name__, saved['param_groups']
    before = checkpoint['meta'].get(OPTIMISER) or kind
    sizes = [[len(group['params']) for group in found] for found in (groups, optimiser.param_groups)]
    if kind != before or sizes[0] != sizes[1]:
        what = f'by {before}, and the config has {kind}'
        if kind == before:
            what = 'with other groups of parameters than those of the config'
        raise UsageError(
            f'{source} was trained {what}: resume it with the optim_wrapper that it had, or begin from its weights, '
            f'with load_from and without --resume'
        )
    lines = [*_settings(optimiser, groups)]
    rates = [[group.get('initial_lr', group['lr']) for group in found] for found in (groups, optimiser.param_groups)]
    if rates[0] != rates[1]:
        new, old = (max(values) for values in reversed(rates))
        lines.append(f'the learning rate of the config is {new:.4g}, in the checkpoint it was {old:.4g}')
    if rates[0] != rates[1] or _are_others(runner.param_schedulers, checkpoint.get('param_schedulers')):
        lines.append(_follow_schedules(runner, checkpoint))
    return lines


def _settings(optimiser: torch.optim.Optimizer, groups: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Writes what the optimiser was made with into `groups` of a checkpoint; other keys are its memory."""
    made_with = {*inspect.signature(type(optimiser)).parameters, 'adamw_ratio'} - {'lr', 'params'}
    for key in sorted(made_with):
        pairs = [
            (mine[key], its[key])
            for mine, its in zip(optimiser.param_groups, groups, strict=True)
            if key in mine and key in its and f'initial_{key}' not in its and mine[key] != its[key]
        ]
        if pairs:
            name = 'adamw_lr / lr' if key == 'adamw_ratio' else key
            yield f'{name} of the config is {pairs[0][0]}, in the checkpoint it was {pairs[0][1]}'
        for mine, its in zip(optimiser.param_groups, groups, strict=True):
            if pairs and key in mine:
                its[key] = mine[key]


def _are_others(schedules: Sequence[_ParamScheduler] | None, saved: Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether schedules are not those of a checkpoint, by what they are made with."""
    if saved is None or len(schedules or ()) != len(saved):
        return saved is not None
    for schedule, state in zip(schedules or (), saved, strict=True):
        made_with = {name for part in type(schedule).__mro__ for name in inspect.signature(part.__init__).parameters}
        mine = vars(schedule)
        if any(mine[key] != state[key] for key in (made_with - {'last_step', 'verbose'}) & mine.keys() & state.keys()):
            return True
    return False


def _follow_schedules(runner: Runner, checkpoint: dict[str, Any]) -> str:
    """Makes learning rates what they would be here, had the config held from the first iteration on."""
    meta, schedules = checkpoint['meta'], runner.param_schedulers or []
    if any(getattr(schedule, 'need_val_args', False) for schedule in schedules):
        raise UsageError(
            'learning rates that follow the score (ReduceOnPlateau) cannot be worked out anew: resume with the '
            'optim_wrapper, param_scheduler and length that the training had'
        )
    before = max(group['lr'] for group in checkpoint['optimizer']['param_groups'])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of steps without the optimiser's
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
    return f"learning rates follow the config's schedule from here: {after:.4g} next, it would have been {before:.4g}"


def _step(schedules: Sequence[_ParamScheduler], updates: int, epochs: int) -> None:
    """Steps new schedules as often as those of a training were."""
    by_update, by_epoch = ([s for s in schedules if s.by_epoch == kind] for kind in (False, True))
    for epoch in range(max(epochs, 1)):
        for _ in range(updates * epoch // max(epochs, 1), updates * (epoch + 1) // max(epochs, 1)):
            for schedule in by_update:
                schedule.step()
        for schedule in by_epoch if epochs else ():
            schedule.step()


def resume_facts(runner: Runner) -> dict[str, Any]:
    """What a checkpoint says of its training, so that a resume knows what the config changes."""
    return {
        RUN: runner.run_id,
        LENGTH: runner.length,
        FORMER: [*runner.former_lengths],
        OPTIMISER: type(_optimiser_of(runner)).__name__,
    }


def _optimiser_of(runner: Runner) -> torch.optim.Optimizer | None:
    """None where a training has several."""
    found = getattr(runner.optim_wrapper, 'optimizer', None)
    return found if isinstance(found, torch.optim.Optimizer) else None
