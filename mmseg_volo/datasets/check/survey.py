"""Decode whole data sets, count what they hold, and report faults and oddities."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmseg_volo.datasets.check.files import IGNORED, DatasetStats, PairCheck, PairResult, check_pair, fault_of
from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.utils.parallel import map_parallel
from mmseg_volo.utils.text import format_table

SHOWN = 10  # files of each kind of fault that a message lists
STRAY = 0.01  # up to this share of validation images may be copies of training images; published sets have some
BLANK = 0.5  # up to this share of labels may be ignored everywhere
TRAIN = 'train_dataloader'
ADVICE = {  # kind of a fault -> what is wrong, and what to do
    'missing': 'missing: every image needs a label of the same name',
    'unreadable': 'unreadable: copy them again, or remove them with their labels',
    'channels': 'no label: a label holds the class index of each pixel in one channel',
    'size': 'of another size than their image: make these labels anew',
    'values': 'with values that are no class: convert these labels, or let the classes (or reduce_zero_label) fit them',
    'ignored': 'ignored everywhere, useless for training and scoring: see reduce_zero_label and the classes',
    'leak': 'copies of training images, which inflates the score: remove them from one of the two sets',
}


@dataclass(frozen=True)
class FilePairs:
    """Hold the files of a data set and the meaning of its label values."""

    pairs: Sequence[tuple[Path, Path | None]]  # images with their labels
    names: Mapping[int, str]  # label value -> class, or 'ignored'
    classes: Sequence[str]
    check: PairCheck = check_pair  # for files that mmseg does not read: the data set's own


def scan(sets: Mapping[str, Sequence[FilePairs]], workers: int | None = None, bar: str = 'files') -> dict[str, Any]:
    """Decode every image and label of data sets, in threads: Pillow's decoders release the GIL.

    Args:
        sets: by role, e.g. `train_dataloader`.
        workers: files at a time; as many as there are cores, up to 16, if None.
        bar: name of the progress bar.

    Returns:
        Plain data: `data_sets` (role -> counts), `faults` (kind -> messages, see `raise_if_faulty`) and `notes`
            (messages).
    """
    jobs = [
        (role, *pair, files.names, files.check)
        for role, members in sets.items()
        for files in members
        for pair in files.pairs
    ]
    tallies = {role: DatasetStats() for role in sets}
    faults: dict[str, list[str]] = defaultdict(list)
    notes: list[str] = []

    def work(role: str, image: Path, label: Path | None, names: Mapping[int, str], check: PairCheck) -> PairResult:
        return check(image, label, names)

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
    """Build the report that `scan` returns, from files that were checked.

    Args:
        sets: by role.
        tallies: counts of these files, by role.
        faults: kind -> messages so far.
        notes: other messages so far.
    """
    faults = defaultdict(list, faults)
    counts = {role: _counts(members, tallies[role]) for role, members in sets.items()}
    for role, of_set in counts.items():
        _judge(role, of_set, faults, notes)
    images = {role: [image for files in members for image, _ in files.pairs] for role, members in sets.items()}
    _compare(images, faults, notes)
    return dict(
        data_sets=counts,
        faults={kind: sorted(set(faults[kind])) for kind in ADVICE if kind in faults},
        notes=notes,
    )


def _counts(members: Sequence[FilePairs], tally: DatasetStats) -> dict[str, Any]:
    names = [*dict.fromkeys(name for files in members for name in files.classes), IGNORED]
    return dict(
        images=sum(len(files.pairs) for files in members),
        labels=sum(label is not None for files in members for _, label in files.pairs),
        sizes=dict(tally.sizes.most_common()),
        pixels={name: tally.pixels[name] for name in names},
        holding={name: tally.holding[name] for name in names},
        turned=sorted(tally.turned),
        blank=sorted(tally.blank),
    )


def _judge(role: str, counts: Mapping[str, Any], faults: dict[str, list[str]], notes: list[str]) -> None:
    """Add the faults and oddities of one data set."""
    if turned := counts['turned']:
        notes.append(
            f'{role}: {len(turned)} images are turned by their EXIF orientation when loaded, and their labels are not: '
            f'check that they fit ({_some(turned)})'
        )
    blank = counts['blank']
    if len(blank) > BLANK * counts['labels']:
        faults['ignored'] += blank
    elif blank:
        notes.append(f'{role}: {len(blank)} labels are ignored everywhere ({_some(blank)})')
    empty = [name for name, count in counts['pixels'].items() if not count and name != IGNORED]
    if role == TRAIN and counts['labels'] and empty:
        notes.append(f'{role}: {len(empty)} of {len(counts["pixels"]) - 1} classes have no pixel ({_some(empty)})')


def _compare(images: Mapping[str, Sequence[Path]], faults: dict[str, list[str]], notes: list[str]) -> None:
    """Add images that occur twice."""
    content = _contents(path for paths in images.values() for path in paths)
    train = set(images.get(TRAIN, []))
    first = {content[path]: path for path in sorted(train & content.keys(), reverse=True)}
    if twins := sorted(path for path in train & content.keys() if first[content[path]] != path):
        notes.append(f'{TRAIN}: {len(twins)} images are copies of others ({_some(twins)})')
    for role, paths in images.items():
        if role == TRAIN:
            continue
        if shared := train.intersection(paths):
            notes.append(f'{role}: {len(shared)} images are training images, which inflates the score')
        leaks = [path for path in paths if content.get(path) in first and path not in shared]
        copies = [f'{path} is {first[content[path]]}' for path in leaks]
        if len(copies) > STRAY * len(paths):
            faults['leak'] += copies
        elif copies:
            notes.append(f'{role}: {len(copies)} images are copies of training images ({_some(copies)})')


def _contents(paths: Iterable[Path]) -> dict[Path, str]:
    """Hash every file that shares its size with another one."""
    by_size: dict[int, set[Path]] = defaultdict(set)
    for path in paths:
        if path.is_file() and (size := path.stat().st_size):
            by_size[size].add(path)
    alike = [path for group in by_size.values() if len(group) > 1 for path in group]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in alike}


def _some(names: Sequence[str | Path]) -> str:
    return ', '.join(map(str, names[:3])) + (', ...' if len(names) > 3 else '')


def raise_if_faulty(report: Mapping[str, Any], way: str = 'mmseg-volo check CONFIG --out FILE lists all files') -> None:
    """Raise an error if `scan` has found faults.

    Args:
        report: of `scan`.
        way: how to get the complete list, for the message.

    Raises:
        UsageError: it has; names up to ten files of each kind, and what to do.
    """
    if not report['faults']:
        return
    lines = [f'the data cannot be used as it is ({way})']
    for kind, messages in report['faults'].items():
        lines.append(f'{len(messages)} {ADVICE[kind]}')
        lines += [f'  {message}' for message in messages[:SHOWN]]
        if len(messages) > SHOWN:
            lines.append(f'  and {len(messages) - SHOWN} more')
    raise UsageError('\n'.join(lines))


def format_report(report: Mapping[str, Any]) -> str:
    """Format a table of the data sets, and one of their classes."""
    sets = report['data_sets']
    rows = [('data set', 'images', 'labels', 'size')]
    for role, counts in sets.items():
        sizes = [*counts['sizes']] if len(counts['sizes']) < 2 else [f'{len(counts["sizes"])} sizes']
        rows.append((role.removesuffix('_dataloader'), counts['images'], counts['labels'], *(sizes or ['-'])))
    shares = [('class', *(text for role in sets for text in (f'{rows[1 + [*sets].index(role)][0]} pixels', 'labels')))]
    for name in next(iter(sets.values()))['pixels'] if sets else ():
        cells = []
        for counts in sets.values():
            total = sum(counts['pixels'].values())
            share = 100 * counts['pixels'].get(name, 0) / total if total else 0
            cells += [f'{share:.3f} %', counts['holding'].get(name, 0)]
        shares.append((name, *cells))
    return f'{format_table(rows)}\n\n{format_table(shares)}'
