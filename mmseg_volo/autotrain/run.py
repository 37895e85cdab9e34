"""Write a config that trains on a folder of images and masks: `mmseg-volo train --data FOLDER --model NAME`."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from mmseg_volo.autotrain import recipe as plan
from mmseg_volo.autotrain.adapt import fit_recipe, resolved
from mmseg_volo.autotrain.batch_size import check_disk, fitting_batch
from mmseg_volo.autotrain.class_names import name_files, read_names
from mmseg_volo.autotrain.config_writer import (
    config_text,
    edited,
    refuse_edited,
    refuse_folders,
    refuse_unlisted,
    write_recipe,
)
from mmseg_volo.autotrain.discover import DiscoveredPairs, Pair, find_layout
from mmseg_volo.autotrain.image_stats import ANY, MANY, WAY, ImageStats, collect_stats, settle_alpha
from mmseg_volo.autotrain.initial_weights import for_images, pixel_words, starting_point, weight_words
from mmseg_volo.autotrain.label_map import Labels, infer_label_map
from mmseg_volo.autotrain.options import AutoTrainOptions
from mmseg_volo.autotrain.resume import OPTIONS_FILE, as_text
from mmseg_volo.autotrain.split import split_pairs
from mmseg_volo.autotrain.summary import class_table
from mmseg_volo.autotrain.unused_files import unused_notes
from mmseg_volo.datasets.check.config import cache_report
from mmseg_volo.datasets.check.files import IGNORED, DatasetStats, count_by_class
from mmseg_volo.datasets.check.survey import FilePairs, build_report, raise_if_faulty
from mmseg_volo.datasets.lists import UNDERSTOOD, class_text, list_text, spelled
from mmseg_volo.errors import UsageError
from mmseg_volo.redaction import redact_text
from mmseg_volo.utils.text import format_table

COMMON = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')  # formats that mmseg, by OpenCV, reads as we do


@dataclass(frozen=True)
class DatasetSummary:
    """The images, masks, classes and splits of a folder."""

    layout: DiscoveredPairs
    splits: Mapping[str, Sequence[Pair]]
    facts: Mapping[Path, ImageStats]  # by image
    labels: Labels
    images: plan.ImageProperties
    lines: Sequence[tuple[str, str]]  # of the table
    notes: Sequence[str]


def write_training_recipe(options: AutoTrainOptions) -> Path:
    """Analyse a folder, choose how to train on it, print a summary, and write a config with lists of files.

    Returns:
        The path of the config.

    Raises:
        FileNotFoundError, UsageError: the data or the options are faulty; nothing was written.
    """
    _check(options)
    refuse_edited(options.config.parent, edited(options.config.parent))
    start = starting_point(options.model, options.weights)
    data = inspect_folder(options)
    start = start and for_images(start, data.images, options.model)
    report, sets = _report(data)
    raise_if_faulty(report, WAY)
    weights = plan.class_weights(_pixels(data.splits['train'], data))
    cfg, lines = _plan(options, start, data, weights)
    text = config_text(cfg, _card(options, data, lines))
    root = data.layout.root.absolute()
    lists = {
        f'{split}.csv': list_text([(pair.image.absolute(), pair.mask and pair.mask.absolute()) for pair in pairs], root)
        for split, pairs in data.splits.items()
    }
    lists['classes.csv'] = class_text(
        data.labels.classes, data.labels.rule.codes, data.labels.rule.ignored, data.labels.palette
    )
    table = '\n'.join(
        [
            format_table([*data.lines, *lines]),
            '',
            class_table(data.labels, {s: [data.facts[p.image] for p in ps] for s, ps in data.splits.items()}, weights),
            *[f'note: {note}' for note in data.notes],
        ]
    )
    print(table)
    files = {**lists, options.config.name: text, UNDERSTOOD: f'{table}\n', OPTIONS_FILE: as_text(options)}
    write_recipe(options.config.parent, files, options.overwrite)
    print(f'\n{options.config} is this training as a config: mmseg-volo train {shlex.quote(str(options.config))}')
    cache_report(report, sets)  # so that the check before the training need not read all files again
    return options.config


def _check(options: AutoTrainOptions) -> None:
    refuse_folders(options.data, str(options.folder.absolute()))
    if options.weights and redact_text(options.weights) != options.weights:
        raise UsageError(
            f'--weights {redact_text(options.weights)}: the recipe would contain the password of this address: '
            f'download the file first, and give its path'
        )
    if options.batch is not None and options.batch < 1:
        raise UsageError(f'--batch must be at least 1, got {options.batch}')
    plan.crop_of(plan.ImageProperties(64, 64, False), options.size)
    plan.length_of(1, 1, options.epochs, False)
    if not Path(os.path.expanduser(options.data)).exists():
        find_layout(Path(os.path.expanduser(options.data)))  # raises, before weights are fetched


def inspect_folder(options: AutoTrainOptions) -> DatasetSummary:
    """Find the images, masks, classes and splits of a folder; reads every file once.

    Raises:
        FileNotFoundError, UsageError: see `write_training_recipe`.
    """
    where = Path(os.path.expanduser(options.data))
    layout = find_layout(where, options.images, options.masks, options.skip_unpaired, options.allow_outside)
    files = [path for pair in layout.pairs for path in (pair.image, pair.mask) if path is not None]
    refuse_unlisted(files, layout.root)
    parents = [*{path.parent for path in files}]
    names, source, unread = read_names(options.classes, layout.root, parents)
    paths = [pair.image for pair in layout.pairs]
    many = ANY if names and all(item.code is not None for item in names) else MANY
    stats, odd = settle_alpha(collect_stats([(pair.image, pair.mask) for pair in layout.pairs], many), paths)
    facts = dict(zip(paths, stats, strict=True))
    common = all(pair.image.suffix.lower() in COMMON for pair in layout.pairs)
    images = replace(_images([facts[pair.image] for pair in layout.pairs]), common=common)
    masked = [facts[pair.image] for pair in layout.pairs if pair.mask is not None]
    labels = infer_label_map(masked, names, source, options.ignore, options.binary)
    splits, how, notes = split_pairs(layout, facts, labels, options.val_share, options.seed or 0)
    counts = ', '.join(f'{split} {len(pairs)}' for split, pairs in splits.items())
    sizes = Counter(f'{f.size[0]}x{f.size[1]}' for f in facts.values())
    size = f'of {len(sizes)} sizes, {images.width}x{images.height} median'
    if len(sizes) == 1:
        size = f'of {next(iter(sizes))}'
    kind = '8-bit RGB' if images.mean is None else f'{len(images.mean)} channels of {masked[0].dtype}'
    ignored = '; '.join(spelled(code) for code in labels.rule.ignored)
    lines = [
        ('data', str(layout.root)),
        ('images', f'{len(facts)} {size}, {kind}; found as {layout.how}'),
        ('masks', f'{labels.rule.words}, {len(labels.classes)} classes; ignored: {ignored or "nothing"}'),
        ('names', source or 'none given (--classes), so made up; --ignore VALUE excludes a value that is no class'),
        ('split', f'{counts}, {how}'),
    ]
    named = [] if options.classes else name_files(layout.root, parents)
    read = [path.relative_to(layout.root).as_posix() for path in named]
    others = unused_notes([name for name in layout.unused if name not in read])
    notes = [*layout.notes, *others, *unread, *odd, *labels.notes, *notes]
    return DatasetSummary(layout, splits, facts, labels, images, lines, notes)


def _images(facts: Sequence[ImageStats]) -> plan.ImageProperties:
    kinds = {(fact.channels, fact.dtype) for fact in facts}
    if len(kinds) > 1:
        types = ', '.join(sorted(f'{channels} channels of {dtype}' for channels, dtype in kinds))
        raise UsageError(f'images are of several types ({types}): all must have the same channels and depth')
    sizes = np.array([fact.size for fact in facts])
    width, height = (int(side) for side in np.median(sizes, 0))
    mixed = bool((sizes != sizes[0]).any())
    if facts[0].sums is None:
        return plan.ImageProperties(width, height, mixed)
    count, total, squares = np.sum([fact.sums for fact in facts if fact.sums is not None], 0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std == 0] = 1  # a channel without content
    means, stds = (tuple(float(f'{v:.5g}') for v in values) for values in (mean, std))
    return plan.ImageProperties(width, height, mixed, means, stds, facts[0].dtype)


def _pixels(pairs: Sequence[Pair], data: DatasetSummary) -> list[int]:
    total: Counter[int] = Counter()
    for pair in pairs:
        total.update(data.labels.pixels(data.facts[pair.image]))
    return [total[i] for i in range(len(data.labels.classes))]


def _plan(
    options: AutoTrainOptions, start: plan.InitialWeights | None, data: DatasetSummary, weights: list[float] | None
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the config, and lines of the summary."""
    count, own = len(data.splits['train']), start is None
    root, splits = plan.absolute(data.layout.root), [*data.splits]

    def build(batch: int | None) -> dict[str, Any]:
        if start is None:
            base = plan.shipped(options.model, options.size, batch)
            if options.weights == 'none':
                base['model']['backbone'].pop('init_cfg', None)
            if options.epochs is not None:
                batch = base['train_dataloader']['batch_size']
                plan.set_length(base, plan.length_of(count, batch, options.epochs, False))
        else:
            iters = plan.length_of(count, batch or plan.CPU_BATCH, options.epochs, start.checkpoint is None)
            crop = plan.crop_of(data.images, options.size)
            base = plan.recipe(options.model, start, data.images, crop, batch or plan.CPU_BATCH, iters, count)
        return fit_recipe(base, data.labels, data.images, weights, batch, splits, root, options.seed or 0)

    batch = options.batch
    if batch is None and not own:
        batch = plan.CPU_BATCH
        if torch.cuda.is_available():
            print('finding the largest batch size that fits the GPU', file=sys.stderr)
            batch = fitting_batch(_as_config(build(batch)), len(data.images.mean or (0, 0, 0)), count)
        batch = min(batch, max(2, count))
    cfg = build(batch)
    parameters = check_disk(_as_config(cfg), options.folder)
    images, iters = cfg['train_dataloader']['batch_size'], cfg['train_cfg']['max_iters']
    loss = 'weighted by class, as classes differ much in pixels' if weights else 'all classes alike; no ignored pixels'
    lines = [
        ('model', f'{plan.model_words(cfg)}, {parameters / 1e6:.1f} M parameters'),
        ('weights', weight_words(options.model, start, cfg)),
        ('pixels', pixel_words(cfg, start, data.images)),
        ('crops', '{}x{} (height x width)'.format(*cfg['crop_size'])),
        (
            'length',
            f'{iters} iterations of {images} images = {iters * images / count:.0f} epochs; validated every '
            f'{cfg["train_cfg"]["val_interval"]}; ends early after {plan.PATIENCE} validations without a better mIoU',
        ),
        ('loss', loss),
    ]
    return cfg, lines


def _as_config(cfg: Mapping[str, Any]) -> Config:
    return Config({key: resolved(cfg[key], cfg) for key in ('model', 'crop_size')})


def _card(options: AutoTrainOptions, data: DatasetSummary, lines: Sequence[tuple[str, str]]) -> str:
    rows = '\n'.join(f'{name}: {value}' for name, value in [*data.lines, *lines])
    return (
        f'{Path(options.model).stem} on {data.layout.root.absolute().name}, written by mmseg-volo train --data; '
        f'edit it as you like.\n\n{rows}'
    )


def _report(data: DatasetSummary) -> tuple[dict[str, Any], dict[str, list[FilePairs]]]:
    """Build the report of the check before a training, and the files that it covers, which need not be read again."""
    labels = data.labels
    names = {code: (*labels.classes, IGNORED)[min(i, len(labels.classes))] for code, i in labels.rule.index.items()}
    by_index = {labels.rule.index[code]: name for code, name in names.items()}
    sets, tallies = {}, {}
    for role in ('train_dataloader', 'val_dataloader'):
        pairs = data.splits[role.removesuffix('_dataloader')]
        files = [(pair.image.absolute(), pair.mask and pair.mask.absolute()) for pair in pairs]
        sets[role], tallies[role] = [FilePairs(files, names, labels.classes)], DatasetStats()
        for pair, (image, mask) in zip(pairs, files, strict=True):
            fact = data.facts[pair.image]
            pixels = count_by_class(labels.pixels(fact), by_index)
            tallies[role].add(image, mask, (f'{fact.size[0]}x{fact.size[1]}', pixels, fact.turned))
    return build_report(sets, tallies, {}, []), sets


def print_best_checkpoint(options: AutoTrainOptions) -> None:
    """Print the path of a training's best checkpoint, and the command that predicts with it."""
    checkpoints = sorted(options.folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    if checkpoints:
        best = shlex.quote(str(checkpoints[-1]))
        print(f'the best weights are {best}: mmseg-volo predict {best} IMAGES --out FOLDER')
