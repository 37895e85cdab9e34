"""What data sets hold, pixel by pixel, and what is wrong or odd about it."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmseg_volo.datasets.check.files import IGNORED, DatasetStats, check_pair, fault_of
from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.utils.parallel import map_parallel
from mmseg_volo.utils.text import format_table

SHOWN = 10  # files of a kind that a message names
STRAY = 0.01  # up to this share of validation images may be copies of training images; published sets have strays
BLANK = 0.5  # up to this share of labels may be ignored everywhere
TRAIN = 'train_dataloader'
ADVICE = {  # by the kind of a fault: what is wrong, and what to do
    'missing': 'missing: every image needs a label of the same name',
    'unreadable': 'unreadable: copy them again, or remove them with their labels',
    'channels': 'no label: it holds the class index of each pixel in one channel',
    'size': 'of another size than their image: make these labels anew',
    'values': 'with values that are no class: convert these labels, or let the classes (or reduce_zero_label) fit them',
    'ignored': 'ignored everywhere, so that they teach and score nothing: see reduce_zero_label and the classes',
    'leak': 'copies of training images, so that their score says little: remove them from one of the two',
}


@dataclass(frozen=True)
class FilePairs:
    """The files of a data set and what its labels mean."""

    pairs: Sequence[tuple[Path, Path | None]]  # images with their labels
    names: Mapping[int, str]  # label value -> class, or 'ignored'
    classes: Sequence[str]
    look: Callable[..., tuple[str, dict[str, int], bool]] = (
        check_pair  # what does for these files what `check_pair` does
    )


def scan(sets: Mapping[str, Sequence[FilePairs]], workers: int | None = None, bar: str = 'files') -> dict[str, Any]:
    """Decodes every image and label of data sets, in threads: Pillow's decoders free Python's lock.

    Args:
        sets: by role, e.g. `train_dataloader`.
        workers: files at a time; as many as there are cores, up to 16, if None.
        bar: name of the progress bar.

    Returns:
        Plain data: `data_sets` (role -> counts), `faults` (kind -> sentences, see `raise_if_faulty`) and `notes`
            (sentences).
    """
    jobs = [
        (role, *pair, part.names, part.look) for role, parts in sets.items() for part in parts for pair in part.pairs
    ]
    tallies, faults, notes = {role: DatasetStats() for role in sets}, defaultdict(list), []
    work = lambda _, image, label, names, look: look(image, label, names)  # noqa: E731
    pool = ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 16))
    for (role, image, label, *_), result in map_parallel(pool, work, jobs, bar):
        if isinstance(result, BadFileError):
            faults[result.kind].append(str(result))
        elif isinstance(result, UsageError):
            raise result
        elif isinstance(result, BaseException):
            faults['unreadable'].append(str(fault_of(image, result)))
        else:
            tallies[role].add(image, label, result)
    return build_report(sets, tallies, faults, notes)


def build_report(
    sets: Mapping[str, Sequence[FilePairs]],
    tallies: Mapping[str, DatasetStats],
    faults: dict[str, list[str]],
    notes: list[str],
) -> dict[str, Any]:
    """What `scan` returns, of files that were looked at.

    Args:
        sets: by role.
        tallies: what they hold, by role.
        faults: kind -> what was found so far.
        notes: what else was found so far.
    """
    faults = defaultdict(list, faults)
    counts = {role: _counts(parts, tallies[role]) for role, parts in sets.items()}
    for role, found in counts.items():
        _judge(role, found, faults, notes)
    _compare(
        {role: [image for part in parts for image, _ in part.pairs] for role, parts in sets.items()}, faults, notes
    )
    return dict(
        data_sets=counts,
        faults={kind: sorted(set(faults[kind])) for kind in ADVICE if kind in faults},
        notes=notes,
    )


def _counts(parts: Sequence[FilePairs], tally: DatasetStats) -> dict[str, Any]:
    names = [*dict.fromkeys(name for part in parts for name in part.classes), IGNORED]
    return dict(
        images=sum(len(part.pairs) for part in parts),
        labels=sum(label is not None for part in parts for _, label in part.pairs),
        sizes=dict(tally.sizes.most_common()),
        pixels={name: tally.pixels[name] for name in names},
        holding={name: tally.holding[name] for name in names},
        turned=sorted(tally.turned),
        blank=sorted(tally.blank),
    )


def _judge(role: str, found: Mapping[str, Any], faults: dict[str, list[str]], notes: list[str]) -> None:
    """Adds what is wrong or odd about one data set."""
    if turned := found['turned']:
        notes.append(
            f'{role}: {len(turned)} images are turned by their EXIF orientation when loaded, and their labels are not: '
            f'see whether they fit ({_some(turned)})'
        )
    blank = found['blank']
    if len(blank) > BLANK * found['labels']:
        faults['ignored'] += blank
    elif blank:
        notes.append(f'{role}: {len(blank)} labels are ignored everywhere ({_some(blank)})')
    empty = [name for name, count in found['pixels'].items() if not count and name != IGNORED]
    if role == TRAIN and found['labels'] and empty:
        notes.append(f'{role}: {len(empty)} of {len(found["pixels"]) - 1} classes have no pixel ({_some(empty)})')


def _compare(images: Mapping[str, Sequence[Path]], faults: dict[str, list[str]], notes: list[str]) -> None:
    """Adds images that occur twice."""
    content = _contents(path for paths in images.values() for path in paths)
    train = set(images.get(TRAIN, []))
    first = {content[path]: path for path in sorted(train & content.keys(), reverse=True)}
    if copies := sorted(path for path in train & content.keys() if first[content[path]] != path):
        notes.append(f'{TRAIN}: {len(copies)} images are copies of others ({_some(copies)})')
    for role, paths in images.items():
        if role == TRAIN:
            continue
        if shared := train.intersection(paths):
            notes.append(f'{role}: {len(shared)} images are training images, so that their score says little')
        leaks = [path for path in paths if content.get(path) in first and path not in shared]
        said = [f'{path} is {first[content[path]]}' for path in leaks]
        if len(said) > STRAY * len(paths):
            faults['leak'] += said
        elif said:
            notes.append(f'{role}: {len(said)} images are copies of training images ({_some(said)})')


def _contents(paths: Iterable[Path]) -> dict[Path, str]:
    """File -> hash, of the files that are not the only ones of their size."""
    by_size: dict[int, set[Path]] = defaultdict(set)
    for path in paths:
        if path.is_file() and (size := path.stat().st_size):
            by_size[size].add(path)
    alike = [path for group in by_size.values() if len(group) > 1 for path in group]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in alike}


def _some(names: Sequence[str | Path]) -> str:
    return ', '.join(map(str, names[:3])) + (', ...' if len(names) > 3 else '')


def raise_if_faulty(report: Mapping[str, Any], way: str = 'mmseg-volo check CONFIG --out FILE lists all files') -> None:
    """Ends the work if `scan` has found faults.

    Args:
        report: of `scan`.
        way: to the whole list.

    Raises:
        UsageError: it has; names up to ten files of a kind, and what to do.
    """
    if not report['faults']:
        return
    lines = [f'the data cannot be used as it is ({way})']
    for kind, said in report['faults'].items():
        lines.append(f'{len(said)} {ADVICE[kind]}')
        lines += [f'  {sentence}' for sentence in said[:SHOWN]]
        if len(said) > SHOWN:
            lines.append(f'  and {len(said) - SHOWN} more')
    raise UsageError('\n'.join(lines))


def format_report(report: Mapping[str, Any]) -> str:
    """A table of the data sets, and one of their classes."""
    sets = report['data_sets']
    rows = [('data set', 'images', 'labels', 'size')]
    for role, found in sets.items():
        sizes = [*found['sizes']] if len(found['sizes']) < 2 else [f'{len(found["sizes"])} sizes']
        rows.append((role.removesuffix('_dataloader'), found['images'], found['labels'], *(sizes or ['-'])))
    shares = [('class', *(text for role in sets for text in (f'{rows[1 + [*sets].index(role)][0]} pixels', 'labels')))]
    for name in next(iter(sets.values()))['pixels'] if sets else ():
        cells = []
        for found in sets.values():
            total = sum(found['pixels'].values())
            share = 100 * found['pixels'].get(name, 0) / total if total else 0
            cells += [f'{share:.3f} %', found['holding'].get(name, 0)]
        shares.append((name, *cells))
    return f'{format_table(rows)}\n\n{format_table(shares)}'
