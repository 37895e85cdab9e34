"""Parts of a training's config that cannot work together: refused before the first step, with what to take instead.

What works otherwise than it looks is a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmseg_volo.datasets.lists import read_classes
from mmseg_volo.datasets.loading import LABEL_STEPS
from mmseg_volo.datasets.mask_codes import GONE, MaskRule
from mmseg_volo.engine.resume import length_of
from mmseg_volo.errors import UsageError

ENDLESS = ('ResumableInfiniteSampler', 'DrawSampler', 'InfiniteSampler')  # the second is a former name of the first
DECAYS = ('PolyLR', 'ProportionalPolyLR', 'CosineAnnealingLR', 'LinearLR', 'ExponentialLR')  # to (nearly) nothing
LOADS = (*LABEL_STEPS, 'LoadRandomCrop')
RANDOM_PLACES = ('RandomCrop', 'LoadRandomCrop', 'RandomRotate', 'RandomMosaic')
FOREVER = 1_000_000_000  # mmengine's end of a schedule that has none


def refuse_impossible(cfg: Mapping[str, Any]) -> None:
    """Looks at the parts of a training's config.

    Raises:
        UsageError: two of them cannot work together.
    """
    loop = cfg.get('train_cfg') or {}
    _refuse_counts(cfg, loop)
    _refuse_losses(cfg.get('model'), 'model')
    for role in ('train_dataloader', 'val_dataloader'):
        for dataset in datasets_of((cfg.get(role) or {}).get('dataset') or {}):
            refuse_steps(dataset, role)


def refuse_sizes(cfg: Mapping[str, Any]) -> None:
    """A batch holds crops of one size.

    Raises:
        UsageError: crops are not padded, or larger than what they are padded to.
    """
    before = (cfg.get('model') or {}).get('data_preprocessor') or {}
    size = before.get('size')
    if _name(before.get('type')) == 'SegDataPreProcessor' and bool(size) == bool(before.get('size_divisor')):
        raise UsageError(
            'model.data_preprocessor must say either size or size_divisor, by which it pads the crops of a batch: set '
            'model.data_preprocessor.size to the size of the crops of train_dataloader'
        )
    for dataset in datasets_of((cfg.get('train_dataloader') or {}).get('dataset') or {}):
        for step in dataset.get('pipeline') or ():
            crop = step.get('crop_size')
            if size and crop and any(a > b for a, b in zip(_sides(crop), _sides(size), strict=True)):
                raise UsageError(
                    f'train_dataloader crops {_by(crop)} ({_name(step["type"])}.crop_size), and '
                    f'model.data_preprocessor.size pads to {_by(size)}, so that a batch may hold several sizes: let '
                    f'them be equal'
                )


def counts_epochs(loop: Mapping[str, Any]) -> bool:
    """Whether a `train_cfg` counts epochs."""
    kind = loop.get('type') or ('EpochBasedTrainLoop' if loop.get('by_epoch') else 'IterBasedTrainLoop')
    return _name(kind) == 'EpochBasedTrainLoop'


def _refuse_counts(cfg: Mapping[str, Any], loop: Mapping[str, Any]) -> None:
    """Loops, samplers, schedules and checkpoints count epochs or iterations alike."""
    sampler = _name(((cfg.get('train_dataloader') or {}).get('sampler') or {}).get('type'))
    if counts_epochs(loop):
        if sampler in ENDLESS:
            raise UsageError(
                f'train_dataloader.sampler is {sampler}, which draws without end, so that an epoch of '
                f'EpochBasedTrainLoop would never end: take train_cfg.type=SegTrainLoop with max_iters, or '
                f'train_dataloader.sampler.type=DefaultSampler'
            )
        return
    if not loop:
        return
    kind = _name(loop.get('type') or 'IterBasedTrainLoop')
    for i, schedule in enumerate(_list(cfg.get('param_scheduler'))):
        if schedule.get('by_epoch', True) and not schedule.get('convert_to_iter_based'):
            raise UsageError(
                f'param_scheduler.{i} ({_name(schedule.get("type"))}) counts epochs and {kind} iterations, so that the '
                f'learning rate would never change: set param_scheduler.{i}.by_epoch=False, and its begin and end in '
                f'iterations'
            )
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if checkpoint and checkpoint.get('by_epoch', True):
        raise UsageError(
            f'default_hooks.checkpoint counts epochs and {kind} iterations, so that no checkpoint would be written '
            f'before the end: set default_hooks.checkpoint.by_epoch=False, and its interval in iterations'
        )


def _refuse_losses(part: Any, key: str) -> None:
    """mmseg's `CrossEntropyLoss` fails at class weights together with `avg_non_ignore`."""
    pairs = part.items() if isinstance(part, Mapping) else enumerate(part) if isinstance(part, (list, tuple)) else ()
    for name, inner in pairs:
        _refuse_losses(inner, f'{key}.{name}')
    if isinstance(part, Mapping) and _name(part.get('type')) == 'CrossEntropyLoss':
        if part.get('class_weight') is not None and part.get('avg_non_ignore') and not part.get('use_sigmoid'):
            raise UsageError(
                f'{key}: CrossEntropyLoss has both class_weight and avg_non_ignore, at which it fails: set '
                f'{key}.type=WeightedCrossEntropy, which averages over the pixels that are not ignored'
            )


def refuse_steps(dataset: Mapping[str, Any], role: str) -> None:
    """The steps of a pipeline, one by one and in their order.

    Args:
        dataset: config of a data set, which no other one wraps.
        role: its loader, for messages.

    Raises:
        UsageError: one cannot work there.
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
            f'{role}: {crop} shows another part each time, which is no score of whole images: leave it out'
        )
    for step, name in zip(steps[loaded:], names[loaded:], strict=True):
        if name in ('RandomFlip', 'ContiguousRandomFlip') and step.get('prob'):
            raise UsageError(
                f'{role}: {name} flips the label too, and predictions are flipped back before they are compared with '
                f'it: leave it out (flips are averaged over by test --tta)'
            )
        if name in ('Resize', 'RandomResize'):
            raise UsageError(
                f'{role}: {name} comes after {names[loaded]} and resizes the label, and predictions have the size of '
                f'the file: let {names[loaded]} come after {name}'
            )


def _refuse_labels(step: Mapping[str, Any], dataset: Mapping[str, Any], role: str) -> None:
    """`LoadAnnotations` reads what the masks of a data set mean."""
    if _name(dataset.get('type')) == 'FolderDataset' and dataset.get('classes'):
        names, codes, ignored, _ = read_classes(Path(dataset['classes']))
        rule = MaskRule(dataset.get('masks', 'values'), codes, ignored)
        as_they_are = all(code in (index, GONE) for code, index in rule.index.items())
        if rule.kind != 'values' or not as_they_are or len(names) > 255:
            raise UsageError(
                f'{role}: LoadAnnotations takes the values of a mask for class indices, and in the masks of this '
                f'FolderDataset {_meaning(rule, names)}: take LoadMask in its place'
            )
    # a data set that says nothing may have a default of its own
    reduce, own = step.get('reduce_zero_label'), dataset.get('reduce_zero_label')
    if None not in (reduce, own) and reduce != own:
        raise UsageError(
            f'{role}: LoadAnnotations has reduce_zero_label={reduce} and its data set {own}: set it in the data set '
            f'only, {role}.dataset.reduce_zero_label={reduce}'
        )


def _meaning(rule: MaskRule, names: Sequence[str]) -> str:
    """A code of a rule that is not the index of its class."""
    if rule.kind != 'values':
        return 'colours stand for classes' if rule.kind == 'colours' else '128 and more is a class'
    code, index = next(((c, i) for c, i in rule.index.items() if c not in (i, GONE)), (0, 0))
    return f'{code} stands for {names[index] if index < len(names) else "what is ignored"}'


def _all_steps(steps: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a pipeline, and those within them."""
    for step in steps:
        if isinstance(step, Mapping):
            yield step
            yield from _all_steps(step.get('transforms') or ())
        elif isinstance(step, (list, tuple)):
            yield from _all_steps(step)


def config_notes(cfg: Mapping[str, Any], schedules: Sequence[Any] | None = None) -> Iterator[str]:
    """What works otherwise than it looks, in sentences.

    Args:
        cfg: of a training.
        schedules: its `param_scheduler`, if it was changed since.
    """
    loop = cfg.get('train_cfg') or {}
    kind = _name(loop.get('type') or ('EpochBasedTrainLoop' if counts_epochs(loop) else 'IterBasedTrainLoop'))
    if kind in ('EpochBasedTrainLoop', 'IterBasedTrainLoop'):
        yield (
            f'{kind} is not resumed exactly: after --resume other samples, crops and flips are drawn than without a '
            f'stop; train_cfg.type=SegTrainLoop with ResumableInfiniteSampler goes on bit for bit'
        )
    length, epochs = length_of(cfg), counts_epochs(loop)
    if early := _ends_early(_list(cfg.get('param_scheduler') if schedules is None else schedules), length, epochs):
        yield early
    begin, last = loop.get('val_begin', 1), loop.get('max_epochs' if epochs else 'max_iters')
    if cfg.get('val_dataloader') and last and begin > last:
        yield f'nothing will be validated: train_cfg.val_begin is {begin}, and the training ends at {last}'
    if not epochs and (cfg.get('log_processor') or {}).get('by_epoch', False):
        yield f'log_processor counts epochs and {kind} iterations: log_processor.by_epoch=False shows how far it is'


def _ends_early(schedules: Sequence[Any], length: int | None, epochs: bool) -> str | None:
    """Whether learning rates have come to their end long before the training."""
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
        f'the learning rate is at its end (eta_min {mine[last].get("eta_min", 0):g}) after {end} of {length} {unit}, '
        f'where param_scheduler.{last} ({kind}) ends: param_scheduler.{last}.end={length} makes it last'
    )


def datasets_of(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A config of a data set, or of those that it wraps."""
    inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    for part in inner:
        yield from datasets_of(part)
    if not inner and dataset:
        yield dataset


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind or '')


def _list(value: Any) -> list[Any]:
    return [*value] if isinstance(value, (list, tuple)) else [value] if isinstance(value, Mapping) else []


def _sides(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _by(size: Any) -> str:
    return 'x'.join(map(str, _sides(size)))
