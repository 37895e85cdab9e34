"""Check every file of a downloaded data set, and make Cityscapes' training labels: `tools/prepare_data.py`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from mmseg_volo.datasets import cache
from mmseg_volo.datasets.check.files import IGNORED, DatasetStats, PairResult, check_pair
from mmseg_volo.datasets.prepare.layouts import LAYOUTS, DatasetLayout, Split, find_splits, unpaired
from mmseg_volo.datasets.prepare.train_ids import complete_png, make_train_ids
from mmseg_volo.errors import UsageError
from mmseg_volo.io.image import read_image, read_label
from mmseg_volo.utils.files import write_whole
from mmseg_volo.utils.parallel import map_parallel
from mmseg_volo.utils.text import format_table
from mmseg_volo.version import __version__

REPORT = 'mmseg_volo_data.json'
SHOWN = 3  # problems in a message; the report lists all
SIZES = 10  # image sizes of a split in the report, the most frequent ones


@dataclass(kw_only=True)
class SplitSummary(DatasetStats):
    """Count what a split holds."""

    images: int
    labels: int
    published: int

    def record(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the counts as plain data for the report."""
        common = dict(sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))[:SIZES])
        if rest := self.images - sum(common.values()):
            common['others'] = rest
        pixels = {name: self.pixels[name] for name in [*classes, IGNORED]}
        return dict(images=self.images, published=self.published, labels=self.labels, sizes=common, pixels=pixels)


def prepare_dataset(
    name: str, root: str | Path, workers: int | None = None, overwrite: bool = False, decode: bool = False
) -> dict[str, Any]:
    """Check a data set, make Cityscapes' training labels, print a table, and write `ROOT/mmseg_volo_data.json`.

    It checks the layout, that every image has its label and the reverse, that every file can be decoded to its end,
    that sizes agree, and every label value, and warns of counts that differ from the published ones. It can be
    repeated: existing training labels are kept.

    Args:
        name: 'cityscapes', 'ade20k' or 'camvid'.
        root: folder of the data set, see data/README.md.
        workers: files at a time; as many as there are cores, up to 16, if None.
        overwrite: make existing training labels anew, too.
        decode: also keep decoded copies of the training split: see `mmseg_volo.datasets.cache`.

    Returns:
        The content of the report.

    Raises:
        FileNotFoundError: there is no such data set at root; the message names the download.
        UsageError: files are missing or unreadable, or have other sizes or values; the report lists all.
    """
    layout, root = LAYOUTS[name], Path(os.path.expanduser(root))
    if workers is not None and workers < 1:
        raise UsageError(f'--workers must be at least 1, got {workers}')
    workers = workers or min(os.cpu_count() or 1, 16)
    splits = _existing_splits(name, layout, root)
    if problems := unpaired(layout, root, splits):
        _fail(name, layout, root, problems)
    made, problems = _make_labels(layout, splits, workers, overwrite)
    if problems:
        _fail(name, layout, root, problems)
    splits = find_splits(layout, root)
    summaries, problems = check_splits(layout, root, splits, workers)
    if problems:
        _fail(name, layout, root, problems)
    warnings = _warnings(layout, summaries)
    report: dict[str, Any] = dict(data_set=name, versions=_versions(), warnings=warnings, problems=[])
    classes = list(layout.value_names().values())[:-1]
    report['splits'] = {split: summary.record(classes) for split, summary in summaries.items()}
    print(_table(summaries, len(layout.classes)))
    if made:
        print(f'{made} training labels made')
    for warning in warnings:
        print(f'warning: {warning}')
    _write_report(root, report)
    if decode:
        _fill_cache(layout, root, splits, summaries, workers)
    return report


def _fill_cache(
    layout: DatasetLayout, root: Path, splits: Mapping[str, Split], summaries: Mapping[str, SplitSummary], workers: int
) -> None:
    """Keep decoded copies of the training split, which is the first."""
    train = next(iter(layout.counts))
    pixels = [(*map(int, size.split('x')), count) for size, count in summaries[train].sizes.items()]
    labels = [splits[train].labels[key] for key in splits[train].images if key in splits[train].labels]
    files = {**dict.fromkeys(splits[train].images.values(), read_image), **dict.fromkeys(labels, read_label)}
    written = cache.fill(root, files, sum(4 * width * height * count for width, height, count in pixels), workers)
    print(f'{written} files decoded; training finds them by itself, and removing {root / cache.FOLDER} undoes it')


def _existing_splits(name: str, layout: DatasetLayout, root: Path) -> dict[str, Split]:
    """Find the files of all splits, or raise an error if there is no image or no label anywhere."""
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
) -> tuple[int, list[str]]:
    """Make missing and cut-off training labels, or all; return how many were made, and a message per failure."""
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
) -> tuple[dict[str, SplitSummary], list[str]]:
    """Decode every image and label, in threads: Pillow's decoders release the GIL.

    Returns:
        The counts of each split, and the problems, a sentence per file.
    """
    names, problems = layout.value_names(), []
    summaries = {
        name: SplitSummary(images=len(split.images), labels=len(split.labels), published=layout.counts[name])
        for name, split in splits.items()
    }
    jobs = [(name, path, split.labels.get(key)) for name, split in splits.items() for key, path in split.images.items()]

    def work(name: str, image: Path, label: Path | None) -> PairResult:
        return check_pair(image, label, names)

    for (name, image, label), result in map_parallel(ThreadPoolExecutor(workers), work, jobs, 'files'):
        if isinstance(result, UsageError):
            problems.append(str(result).replace(f'{root}/', ''))
        elif isinstance(result, BaseException):
            raise result
        else:
            summaries[name].add(image, label, result)
    for name, summary in summaries.items():
        summary.turned = [path.removeprefix(f'{root}/') for path in summary.turned]
        summary.blank = [path.removeprefix(f'{root}/') for path in summary.blank if name not in layout.unscored]
    return summaries, sorted(problems)


def _warnings(layout: DatasetLayout, summaries: Mapping[str, SplitSummary]) -> list[str]:
    warnings = []
    for split, summary in summaries.items():
        if summary.images != summary.published:
            warnings.append(f'{split} has {summary.images} images, the published data set {summary.published}')
        if summary.images and not summary.labels:
            warnings.append(f'{split} has no labels: its masks can be written (--format-only), not scored')
        if summary.turned:
            warnings.append(
                f'{split}: {len(summary.turned)} images are turned by their EXIF orientation when loaded, and their '
                f'labels are not: check that they fit, e.g. {min(summary.turned)}'
            )
        if summary.blank:
            warnings.append(f'{split}: {len(summary.blank)} labels are ignored everywhere, e.g. {min(summary.blank)}')
    return warnings


def _fail(name: str, layout: DatasetLayout, root: Path, problems: Sequence[str]) -> NoReturn:
    """Write the report, and raise the first problems with what to do."""
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


def _table(summaries: Mapping[str, SplitSummary], num_classes: int) -> str:
    rows: list[Sequence[object]] = [('split', 'images', 'published', 'labels', 'size', 'classes', 'ignored pixels')]
    for split, summary in summaries.items():
        pixels = summary.pixels
        size = next(iter(summary.sizes), '-') if len(summary.sizes) < 2 else f'{len(summary.sizes)} sizes'
        used, total = sum(1 for name, n in pixels.items() if n and name != IGNORED), sum(pixels.values())
        share = f'{100 * pixels[IGNORED] / total:.1f} %' if total else '-'
        counts = summary.images, summary.published, summary.labels
        rows.append((split, *counts, size, f'{used} of {num_classes}', share))
    return format_table(rows)
