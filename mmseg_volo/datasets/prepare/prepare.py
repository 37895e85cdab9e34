"""A look at every file of a data set before training, and Cityscapes' training labels: `tools/prepare_data.py`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from mmseg_volo.datasets import cache
from mmseg_volo.datasets.check.files import IGNORED, DatasetStats, check_pair
from mmseg_volo.datasets.prepare.layouts import LAYOUTS, DatasetLayout, Split, find_splits, unpaired
from mmseg_volo.datasets.prepare.train_ids import complete_png, make_train_ids
from mmseg_volo.errors import UsageError
from mmseg_volo.io.image import read_image, read_label
from mmseg_volo.utils.files import write_whole
from mmseg_volo.utils.parallel import map_parallel
from mmseg_volo.utils.text import format_table
from mmseg_volo.version import __version__

REPORT = 'mmseg_volo_data.json'
SHOWN = 3  # problems in a message; the report has them all
SIZES = 10  # image sizes of a split in the report


@dataclass(kw_only=True)
class SplitSummary(DatasetStats):
    """What was found in a split."""

    images: int
    labels: int
    published: int

    def record(self, classes: Sequence[str]) -> dict[str, Any]:
        """As plain data for the report."""
        common = dict(sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))[:SIZES])
        if rest := self.images - sum(common.values()):
            common['others'] = rest
        pixels = {name: self.pixels[name] for name in [*classes, IGNORED]}
        return dict(images=self.images, published=self.published, labels=self.labels, sizes=common, pixels=pixels)


def prepare_dataset(
    name: str, root: str | Path, workers: int | None = None, overwrite: bool = False, decode: bool = False
) -> dict[str, Any]:
    """Checks a data set, makes Cityscapes' training labels, prints a table, and writes `ROOT/mmseg_volo_data.json`.

    Checked are the layout, that every image has its label and the reverse, that every file can be decoded to its end,
    that sizes agree, and every label value. Other counts than the published ones are warned of. It can be repeated:
    training labels that are there are kept.

    Args:
        name: 'cityscapes', 'ade20k' or 'camvid'.
        root: folder of the data set, see data/README.md.
        workers: files at a time; as many as there are cores, up to 16, if None.
        overwrite: make all training labels anew that can be made.
        decode: also keep decoded copies of the training split: see `mmseg_volo.datasets.cache`.

    Returns:
        The content of the report.

    Raises:
        FileNotFoundError: there is no such data set at root; the message says what to download.
        UsageError: files are missing, unreadable, of other sizes or values; the report has them all.
    """
    layout, root = LAYOUTS[name], Path(os.path.expanduser(root))
    if workers is not None and workers < 1:
        raise UsageError(f'--workers must be at least 1, got {workers}')
    workers = workers or min(os.cpu_count() or 1, 16)
    splits = _present(name, layout, root)
    if problems := unpaired(layout, root, splits):
        _fail(name, layout, root, problems)
    made, problems = _make_labels(layout, splits, workers, overwrite)
    if problems:
        _fail(name, layout, root, problems)
    splits = find_splits(layout, root)
    found, problems = check_splits(layout, root, splits, workers)
    if problems:
        _fail(name, layout, root, problems)
    report = dict(data_set=name, versions=_versions(), warnings=_warnings(layout, found), problems=[])
    report['splits'] = {split: f.record(list(layout.value_names().values())[:-1]) for split, f in found.items()}
    print(_table(found, len(layout.classes)))
    if made:
        print(f'{made} training labels made')
    for warning in report['warnings']:
        print(f'warning: {warning}')
    _write_report(root, report)
    if decode:
        _fill_cache(layout, root, splits, found, workers)
    return report


def _fill_cache(
    layout: DatasetLayout, root: Path, splits: Mapping[str, Split], found: Mapping[str, SplitSummary], workers: int
) -> None:
    """Decoded copies of the training split: the first."""
    train = next(iter(layout.counts))
    pixels = [(*map(int, size.split('x')), count) for size, count in found[train].sizes.items()]
    labels = [splits[train].labels[key] for key in splits[train].images if key in splits[train].labels]
    files = {**dict.fromkeys(splits[train].images.values(), read_image), **dict.fromkeys(labels, read_label)}
    written = cache.fill(root, files, sum(4 * width * height * count for width, height, count in pixels), workers)
    print(f'{written} files decoded; training finds them by itself, and removing {root / cache.FOLDER} undoes it')


def _present(name: str, layout: DatasetLayout, root: Path) -> dict[str, Split]:
    """The files of all splits, or an error if there is no image or no label anywhere."""
    if not root.is_dir():
        raise FileNotFoundError(f'{name}: there is no folder {root.absolute()}: {layout.download.format(root=root)}')
    splits = find_splits(layout, root)
    for kind, folder in (('images', layout.images), ('labels', layout.labels)):
        if not any(split.images if kind == 'images' else split.labels or split.sources for split in splits.values()):
            suffixes = [layout.image_suffix] if kind == 'images' else [layout.label_suffix, *layout.sources]
            here = sorted(p.name for p in root.iterdir() if not p.name.startswith('.'))[:5]
            inner = [p for p in sorted(root.iterdir()) if any((p / layout.images / s).is_dir() for s in layout.counts)]
            hint = f'give {inner[0]} instead, or ' if inner else ''
            raise FileNotFoundError(
                f'{name}: no {kind} ({" or ".join("*" + s for s in suffixes)}) in '
                f'{folder}/{{{",".join(layout.counts)}}} of {root.absolute()}, which holds {here}: '
                f'{hint}{layout.download.format(root=root)}'
            )
    return splits


def _make_labels(
    layout: DatasetLayout, splits: Mapping[str, Split], workers: int, overwrite: bool
) -> tuple[int, Sequence[str]]:
    """(how many training labels were made, what failed): those that are missing or cut off, or all that can be."""
    jobs = []
    for split in splits.values():
        for key in split.sources.keys() & split.images.keys():
            label = split.label_folder / f'{key}{layout.label_suffix}'
            if overwrite or not complete_png(label):
                jobs.append((split.sources[key], label))
    failed = make_train_ids(sorted(jobs), workers) if jobs else []
    return len(jobs) - len(failed), failed


def check_splits(
    layout: DatasetLayout, root: Path, splits: Mapping[str, Split], workers: int
) -> tuple[dict[str, SplitSummary], Sequence[str]]:
    """Decodes every image and label, in threads: Pillow's decoders free Python's lock.

    Returns:
        What is in each split, and what is wrong, a sentence per file.
    """
    names, problems = layout.value_names(), []
    found = {
        s: SplitSummary(images=len(split.images), labels=len(split.labels), published=layout.counts[s])
        for s, split in splits.items()
    }
    jobs = [(s, path, split.labels.get(key)) for s, split in splits.items() for key, path in split.images.items()]
    work = lambda _, image, label: check_pair(image, label, names)  # noqa: E731
    for (split, image, label), result in map_parallel(ThreadPoolExecutor(workers), work, jobs, 'files'):
        if isinstance(result, UsageError):
            problems.append(str(result).replace(f'{root}/', ''))
        elif isinstance(result, BaseException):
            raise result
        else:
            found[split].add(image, label, result)
    for split, f in found.items():
        f.turned = [path.removeprefix(f'{root}/') for path in f.turned]
        f.blank = [path.removeprefix(f'{root}/') for path in f.blank if split not in layout.unscored]
    return found, sorted(problems)


def _warnings(layout: DatasetLayout, found: Mapping[str, SplitSummary]) -> list[str]:
    said = []
    for split, f in found.items():
        if f.images != f.published:
            said.append(f'{split} has {f.images} images, the published data set {f.published}')
        if f.images and not f.labels:
            said.append(f'{split} has no labels: its masks can be written (--format-only), not scored')
        if f.turned:
            said.append(
                f'{split}: {len(f.turned)} images are turned by their EXIF orientation when loaded, and their labels '
                f'are not: see whether they fit, e.g. {sorted(f.turned)[0]}'
            )
        if f.blank:
            said.append(f'{split}: {len(f.blank)} labels are ignored everywhere, e.g. {sorted(f.blank)[0]}')
    return said


def _fail(name: str, layout: DatasetLayout, root: Path, problems: Sequence[str]) -> NoReturn:
    """Writes the report, and raises what is wrong with the way out."""
    report = dict(data_set=name, versions=_versions(), problems=list(problems))
    written = _write_report(root, report, quiet=True)
    more = len(problems) - SHOWN
    rest = f'; and {more} more{f", all in {root / REPORT}" if written else ""}' if more > 0 else ''
    anew = ' (*_labelTrainIds.png: --overwrite makes them anew)' if layout.sources else ''
    raise UsageError(
        f'{name}: {"; ".join(problems[:SHOWN])}{rest}: repair these files or copy them again{anew}; '
        f'or {layout.download.format(root=root)}'
    )


def _versions() -> dict[str, str]:
    return dict(mmseg_volo=__version__, **{name: version(name) for name in ('cityscapesscripts', 'pillow')})


def _write_report(root: Path, report: Mapping[str, Any], quiet: bool = False) -> bool:
    try:
        write_whole(root / REPORT, (json.dumps(report, indent=1) + '\n').encode())
    except OSError as error:
        if not quiet:
            print(f'note: {root / REPORT} cannot be written ({error.strerror}); training does not need it')
        return False
    if not quiet:
        print(f'written to {root / REPORT}')
    return True


def _table(found: Mapping[str, SplitSummary], num_classes: int) -> str:
    rows = [('split', 'images', 'published', 'labels', 'size', 'classes', 'ignored pixels')]
    for split, f in found.items():
        sizes = [*f.sizes] if len(f.sizes) < 2 else [f'{len(f.sizes)} sizes']
        total, used = sum(f.pixels.values()), sum(1 for name, n in f.pixels.items() if n and name != IGNORED)
        share = f'{100 * f.pixels[IGNORED] / total:.1f} %' if total else '-'
        rows.append((split, f.images, f.published, f.labels, *(sizes or ['-']), f'{used} of {num_classes}', share))
    return format_table(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """`tools/prepare_data.py`.

    Args:
        argv: e.g. `['cityscapes', 'data/cityscapes']`; `sys.argv[1:]` if None.

    Returns:
        The exit status: 0, 2 with one sentence on stderr, or 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser('prepare_data.py', description='Check a data set and make what training needs.')
    parser.add_argument('data_set', choices=[*LAYOUTS])
    parser.add_argument('path', help='its folder, see data/README.md')
    parser.add_argument('--workers', type=int, help='files at a time; as many as there are cores, up to 16')
    parser.add_argument('--overwrite', action='store_true', help="make all of Cityscapes' training labels anew")
    parser.add_argument(
        '--cache',
        action='store_true',
        help='also keep decoded copies of the training files (25 GB for Cityscapes; it is said before), from which '
        'training loads several times as fast; can be stopped and repeated',
    )
    args = parser.parse_args(argv)
    try:
        prepare_dataset(args.data_set, args.path, args.workers, args.overwrite, args.cache)
    except (UsageError, FileNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped: what is made is complete, the same command goes on', file=sys.stderr)
        return 130
    return 0
