"""Refuse settings of a training's config that cannot work together, before the first step; note surprising ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmseg_volo.datasets.lists import read_classes
from mmseg_volo.datasets.loading import LABEL_STEPS
from mmseg_volo.datasets.mask_codes import GONE, MaskRule
from mmseg_volo.engine.resume import length_of
from mmseg_volo.errors import UsageError
from mmseg_volo.io.steps import RESUMABLE_SAMPLERS

ENDLESS = (*RESUMABLE_SAMPLERS, 'InfiniteSampler')
DECAYS = (
    'PolyLR',
    'ProportionalPolyLR',
    'CosineAnnealingLR',
    'LinearLR',
    'ExponentialLR',
)  # schedules that end at (nearly) zero
LOADS = (*LABEL_STEPS, 'LoadRandomCrop')
RANDOM_PLACES = ('RandomCrop', 'LoadRandomCrop', 'RandomRotate', 'RandomMosaic')
FOREVER = 1_000_000_000  # mmengine's end of a schedule that has none


def refuse_impossible(cfg: Mapping[str, Any]) -> None:
    """Refuse settings of a training's config that cannot work together.

    Raises:
        UsageError: two of them contradict each other; names both.
    """
    loop = cfg.get('train_cfg') or {}
    _refuse_counts(cfg, loop)
    _refuse_losses(cfg.get('model'), 'model')
    for role in ('train_dataloader', 'val_dataloader'):
        for dataset in datasets_of((cfg.get(role) or {}).get('dataset') or {}):
            refuse_steps(dataset, role)


def refuse_sizes(cfg: Mapping[str, Any]) -> None:
    """Refuse crops that would not all have one size in a batch.

    Raises:
        UsageError: crops are not padded, or are larger than the padded size.
    """
    before = (cfg.get('model') or {}).get('data_preprocessor') or {}
    size = before.get('size')
    if _name(before.get('type')) == 'SegDataPreProcessor' and bool(size) == bool(before.get('size_divisor')):
        raise UsageError(
            'model.data_preprocessor needs either size or size_divisor, to which it pads the crops of a batch: set '
            'model.data_preprocessor.size to the crop size of train_dataloader'
        )
    for dataset in datasets_of((cfg.get('train_dataloader') or {}).get('dataset') or {}):
        for step in dataset.get('pipeline') or ():
            crop = step.get('crop_size')
            if size and crop and any(a > b for a, b in zip(_sides(crop), _sides(size), strict=True)):
                raise UsageError(
                    f'train_dataloader crops to {_by(crop)} ({_name(step["type"])}.crop_size), but '
                    f'model.data_preprocessor.size pads to {_by(size)}, so that a batch may hold several sizes: make '
                    f'them equal'
                )


def counts_epochs(loop: Mapping[str, Any]) -> bool:
    """Tell whether a `train_cfg` counts epochs."""
    kind = loop.get('type') or ('EpochBasedTrainLoop' if loop.get('by_epoch') else 'IterBasedTrainLoop')
    return _name(kind) == 'EpochBasedTrainLoop'


def _refuse_counts(cfg: Mapping[str, Any], loop: Mapping[str, Any]) -> None:
    """Refuse samplers, schedules and checkpoints that count epochs in a loop of iterations, or the reverse."""
    sampler = _name(((cfg.get('train_dataloader') or {}).get('sampler') or {}).get('type'))
    if counts_epochs(loop):
        if sampler in ENDLESS:
            raise UsageError(
                f'train_dataloader.sampler is {sampler}, which never ends, so that an epoch of '
                f'EpochBasedTrainLoop would never end: set train_cfg.type=SegTrainLoop with max_iters, or '
                f'train_dataloader.sampler.type=DefaultSampler'
            )
        return
    if not loop:
        return
    kind = _name(loop.get('type') or 'IterBasedTrainLoop')
    for i, schedule in enumerate(_list(cfg.get('param_scheduler'))):
        if schedule.get('by_epoch', True) and not schedule.get('convert_to_iter_based'):
            raise UsageError(
                f'param_scheduler.{i} ({_name(schedule.get("type"))}) counts epochs but {kind} iterations, so that the '
                f'learning rate would never change: set param_scheduler.{i}.by_epoch=False, and its begin and end in '
                f'iterations'
            )
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if checkpoint and checkpoint.get('by_epoch', True):
        raise UsageError(
            f'default_hooks.checkpoint counts epochs but {kind} iterations, so that no checkpoint would be written '
            f'before the end: set default_hooks.checkpoint.by_epoch=False, and its interval in iterations'
        )


def _refuse_losses(value: object, key: str) -> None:
    """Refuse class weights together with `avg_non_ignore`, where mmseg's `CrossEntropyLoss` fails."""
    pairs = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    for name, inner in pairs:
        _refuse_losses(inner, f'{key}.{name}')
    if isinstance(value, Mapping) and _name(value.get('type')) == 'CrossEntropyLoss':
        if value.get('class_weight') is not None and value.get('avg_non_ignore') and not value.get('use_sigmoid'):
            raise UsageError(
                f'{key}: CrossEntropyLoss fails with both class_weight and avg_non_ignore: set '
                f'{key}.type=WeightedCrossEntropy, which averages over the pixels that are not ignored'
            )


def refuse_steps(dataset: Mapping[str, Any], role: str) -> None:
    """Refuse steps of a pipeline that cannot work, alone or in their order.

    Args:
        dataset: config of a data set that wraps no other one.
        role: its loader, for messages.

    Raises:
        UsageError: a step cannot work; names it.
    """
    steps = dataset.get('pipeline') or ()
    names = [_name(step.get('type')) for step in steps]
    if not names:
        return
    for step in _all_steps(steps):
        if _name(step.get('type')) == 'LoadAnnotations':
            _refuse_labels(step, dataset, role)
    loaded = next((i for i, name in enumerate(names) if name in LOADS), None)
    if role == 'train_dataloader' or loaded is None:
        return
    if crop := next((name for name in names if name in RANDOM_PLACES), None):
        raise UsageError(
            f'{role}: {crop} picks another crop each time, so that scores would not be of whole images: leave it out'
        )
    for step, name in zip(steps[loaded:], names[loaded:], strict=True):
        if name in ('RandomFlip', 'ContiguousRandomFlip') and step.get('prob'):
            raise UsageError(
                f'{role}: {name} flips the label too, but predictions are flipped back before they are compared with '
                f'it: leave it out (test --tta averages over flips)'
            )
        if name in ('Resize', 'RandomResize'):
            raise UsageError(
                f'{role}: {name} comes after {names[loaded]} and resizes the label, but predictions have the size of '
                f'the file: move {names[loaded]} after {name}'
            )


def _refuse_labels(step: Mapping[str, Any], dataset: Mapping[str, Any], role: str) -> None:
    """Refuse `LoadAnnotations` where mask values are not class indices, or it contradicts its data set."""
    if _name(dataset.get('type')) == 'FolderDataset' and dataset.get('classes'):
        names, codes, ignored, _ = read_classes(Path(dataset['classes']))
        rule = MaskRule(dataset.get('masks', 'values'), codes, ignored)
        values_are_indices = all(code in (index, GONE) for code, index in rule.index.items())
        if rule.kind != 'values' or not values_are_indices or len(names) > 255:
            raise UsageError(
                f'{role}: LoadAnnotations reads mask values as class indices, but in the masks of this '
                f'FolderDataset {_meaning(rule, names)}: use LoadMask instead'
            )
    # a data set that does not set it may have a default of its own
    reduce, own = step.get('reduce_zero_label'), dataset.get('reduce_zero_label')
    if None not in (reduce, own) and reduce != own:
        raise UsageError(
            f'{role}: LoadAnnotations has reduce_zero_label={reduce}, but its data set {own}: set it in the data set '
            f'only, {role}.dataset.reduce_zero_label={reduce}'
        )


def _meaning(rule: MaskRule, names: Sequence[str]) -> str:
    """Describe a mask value that is not the index of its class."""
    if rule.kind != 'values':
        return 'colours stand for classes' if rule.kind == 'colours' else 'values of 128 and more are a class'
    code, index = next(((c, i) for c, i in rule.index.items() if c not in (i, GONE)), (0, 0))
    return f'{code} stands for {names[index] if index < len(names) else "ignored pixels"}'


def _all_steps(steps: Iterable[object]) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a pipeline, and those nested in them."""
    for step in steps:
        if isinstance(step, Mapping):
            yield step
            yield from _all_steps(step.get('transforms') or ())
        elif isinstance(step, (list, tuple)):
            yield from _all_steps(step)


def config_notes(cfg: Mapping[str, Any], schedules: Sequence[Any] | None = None) -> Iterator[str]:
    """Yield a sentence for each setting whose effect may surprise.

    Args:
        cfg: of a training.
        schedules: its `param_scheduler`, if it has changed since.
    """
    loop = cfg.get('train_cfg') or {}
    kind = _name(loop.get('type') or ('EpochBasedTrainLoop' if counts_epochs(loop) else 'IterBasedTrainLoop'))
    if kind in ('EpochBasedTrainLoop', 'IterBasedTrainLoop'):
        yield (
            f'{kind} does not resume exactly: after --resume it draws other samples, crops and flips than without a '
            f'stop; train_cfg.type=SegTrainLoop with ResumableInfiniteSampler resumes bit for bit'
        )
    length, epochs = length_of(cfg), counts_epochs(loop)
    if early := _ends_early(_list(cfg.get('param_scheduler') if schedules is None else schedules), length, epochs):
        yield early
    start, last = loop.get('val_begin', 1), loop.get('max_epochs' if epochs else 'max_iters')
    if cfg.get('val_dataloader') and last and start > last:
        yield f'no validation will run: train_cfg.val_begin is {start}, but the training ends at {last}'
    if not epochs and (cfg.get('log_processor') or {}).get('by_epoch', False):
        yield f'log_processor counts epochs but {kind} iterations: log_processor.by_epoch=False logs the progress'


def _ends_early(schedules: Sequence[Any], length: int | None, epochs: bool) -> str | None:
    """Return a sentence if learning rates reach their end before the training does."""
    mine = [s for s in schedules if isinstance(s, Mapping) and s.get('by_epoch', True) == epochs]
    if not length or not mine or len(mine) < len(schedules):
        return None
    last = max(range(len(mine)), key=lambda i: mine[i].get('end', FOREVER))
    end, kind = mine[last].get('end', FOREVER), _name(mine[last].get('type'))
    grows = kind == 'LinearLR' and mine[last].get('end_factor', 1.0) >= 0.1
    if end >= length or kind not in DECAYS or grows:
        return None
    unit = 'epochs' if epochs else 'updates'
    return (
        f'the learning rate reaches its end (eta_min {mine[last].get("eta_min", 0):g}) after {end} of {length} {unit}, '
        f'where param_scheduler.{last} ({kind}) ends: param_scheduler.{last}.end={length} stretches it'
    )


def datasets_of(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the config of a data set, or of those that it wraps."""
    wrapped = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    for inner in wrapped:
        yield from datasets_of(inner)
    if not wrapped and dataset:
        yield dataset


def _name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind or '')


def _list(value: object) -> list[Any]:
    return [*value] if isinstance(value, (list, tuple)) else [value] if isinstance(value, Mapping) else []


def _sides(size: int | Sequence[int]) -> Sequence[int]:
    return (size, size) if isinstance(size, int) else size


def _by(size: int | Sequence[int]) -> str:
    return 'x'.join(map(str, _sides(size)))
