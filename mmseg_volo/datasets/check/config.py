"""A look at a config's data sets before work starts: at their files' headers, or at every pixel once.

`mmseg-volo check CONFIG` looks at every pixel, and so does every training, unless it was done since a file changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmseg_volo.datasets.check.files import IGNORED, check_pair
from mmseg_volo.datasets.check.survey import FilePairs, format_report, raise_if_faulty, scan
from mmseg_volo.datasets.transforms import label_table
from mmseg_volo.errors import UsageError
from mmseg_volo.io.image import read_label
from mmseg_volo.utils.files import write_whole
from mmseg_volo.utils.progress import ProgressBar

WORTH = 2.0  # seconds: what a shorter look has found is not kept
FORMAT = 1  # of what is kept; with another number all is looked at anew


def check_data(cfg: Config, roles: Sequence[str], pixels: bool) -> dict[str, Any] | None:
    """Looks at the data sets of a config, and whether its heads have their classes.

    Args:
        cfg: of a training or a test.
        roles: which data loaders; those that the config lacks are left out.
        pixels: whether to look at every pixel, if that was not done before, and print what is odd; else at headers.

    Returns:
        What `scan` found, if all pixels were looked at.

    Raises:
        FileNotFoundError, UsageError: something is wrong; says what, where and what to do.
    """
    sets = all_files(cfg, roles)
    if not pixels:
        for role, parts in sets.items():
            _headers(parts, role)
        return None
    report = cached_report(sets)
    raise_if_faulty(report)
    for note in report['notes']:
        print(f'note: {note}')
    return report


def all_files(cfg: Config, roles: Sequence[str]) -> dict[str, list[FilePairs]]:
    """The files of a config's data sets, of which the model's heads have the classes.

    Args:
        cfg: of a training or a test.
        roles: which data loaders; those that the config lacks are left out.

    Raises:
        FileNotFoundError, UsageError: there are no such files, or the classes are others.
    """
    sets = {role: files_of(cfg[role].dataset, role) for role in roles if cfg.get(role)}
    for role, parts in sets.items():
        _check_heads(cfg.get('model') or {}, parts[0].classes, role)
    return sets


def files_of(dataset: ConfigDict, what: str) -> list[FilePairs]:
    """Lists the files of a data set, or of those that it wraps (`RepeatDataset`, `ConcatDataset`, ...).

    Args:
        dataset: config of a mmseg data set.
        what: its role, for messages, e.g. `train_dataloader`.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        UsageError: it cannot be built.
    """
    if parts := dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else []):
        return [found for part in parts for found in files_of(part, what)]
    try:
        with DefaultScope.overwrite_default_scope('mmseg'):
            found = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f'{what}: {" ".join(str(error).split())}') from error
    folder = Path(found.data_prefix['img_path'])
    root = f'set data_root (now {dataset.get("data_root")!r}), e.g. --cfg-options data_root=PATH, or see data/README.md'
    if not folder.is_dir():
        raise FileNotFoundError(f'{what}: there is no folder {folder.absolute()}; {root}')
    found.serialize_data = False  # an empty list could not be
    found.full_init()
    if not found.data_list:
        here = sorted(p.name for p in folder.iterdir())[:5]
        raise FileNotFoundError(f'{what}: no *{found.img_suffix} under {folder.absolute()}, which holds {here}; {root}')
    pairs = [
        (Path(item['img_path']), Path(item['seg_map_path']) if 'seg_map_path' in item else None)
        for item in found.data_list
    ]
    if not (classes := found.metainfo.get('classes')):
        raise UsageError(f'{what}: the data set names no classes: add metainfo=dict(classes=(...))')
    names, look = reader_of(found, found.data_list[0], classes)
    return [FilePairs(pairs, names, classes, look)]


def refuse_output_in_data(dataset: ConfigDict, folder: str, option: str) -> None:
    """Results among a data set's files would replace those of their names, or be taken for some of them.

    Args:
        dataset: config of a mmseg data set.
        folder: for results.
        option: that names it.

    Raises:
        FileNotFoundError, UsageError: see `files_of`; or the folder is one of the data set's.
    """
    out = os.path.realpath(folder)
    pairs = [pair for part in files_of(dataset, 'test_dataloader') for pair in part.pairs]
    for place in sorted({path.parent for pair in pairs for path in pair if path is not None}):
        if os.path.join(out, '').startswith(os.path.join(os.path.realpath(place), '')):
            raise UsageError(f'{option} {folder} lies in {place}, which holds files of the data set: name another one')


def reader_of(
    dataset: Any, item: Mapping[str, Any], classes: Sequence[str]
) -> tuple[dict[int, str], Callable[..., tuple[str, dict[str, int], bool]]]:
    """What label values of a data set mean, and what looks at its files: its own `value_names` and `look`, if it reads
    other files than mmseg does, else `classes_by_value` and `check_pair`.
    """
    if hasattr(dataset, 'value_names'):
        return dataset.value_names, dataset.look
    return classes_by_value(item, classes, getattr(dataset, 'ignore_index', 255)), check_pair


def classes_by_value(item: Mapping[str, Any], classes: Sequence[str], ignore_index: int) -> dict[int, str]:
    """What label values mean: value -> class, or 'ignored'.

    Args:
        item: of a data set, with `reduce_zero_label` and `label_map`.
        classes: the names of its classes.
        ignore_index: the index of pixels that do not count.
    """
    table = label_table(item)
    indices = range(256) if table is None else map(int, table)
    return {
        value: IGNORED if index == ignore_index else classes[index]
        for value, index in enumerate(indices)
        if index == ignore_index or index < len(classes)
    }


def _check_heads(model: Mapping[str, Any], classes: Sequence[str], what: str) -> None:
    """mmseg trains a head of 150 classes on 19 without a word."""
    model = model.get('module', model)  # of a segmentor for test-time augmentation
    for key in ('decode_head', 'auxiliary_head'):
        heads = model.get(key) or []
        for head in heads if isinstance(heads, Sequence) else [heads]:
            if head.get('num_classes', len(classes)) != len(classes):
                raise UsageError(
                    f'model.{key} has num_classes={head.num_classes}, but the data set of {what} has {len(classes)} '
                    f'classes ({", ".join(classes[:3])}, ...): set num_classes={len(classes)}, or take another data set'
                )


def check_files(dataset: ConfigDict, what: str) -> int:
    """Every image and label of a data set is there and begins like a picture; only headers are read.

    Args:
        dataset: config of a mmseg data set.
        what: its role, for messages, e.g. `train_dataloader`.

    Returns:
        How many images there are.

    Raises:
        FileNotFoundError: a folder or a file is missing.
        UsageError: a file is empty or no picture, or a label has colours or more than 8 bits.
    """
    parts = files_of(dataset, what)
    _headers(parts, what)
    return sum(len(part.pairs) for part in parts)


def _headers(parts: Sequence[FilePairs], what: str) -> None:
    pairs = [(*pair, part.look) for part in parts for pair in part.pairs]
    for image, label, look in ProgressBar(pairs, desc=f'checking files of {what}', unit='image', leave=False):
        for path in filter(None, (image, label)):
            if not path.is_file():
                raise FileNotFoundError(f'{what}: {path} is missing: every image needs a label of the same name')
            if look is not check_pair:  # other files than pictures, too
                continue
            try:
                with Image.open(path) as picture:
                    mode = picture.mode
            except Exception as error:  # whatever a broken file makes Pillow raise
                size, way_out = path.stat().st_size, 'repair or remove it'
                raise UsageError(f'{what}: {path} ({size} bytes) is not a readable picture: {way_out}') from error
            if path == label and mode not in ('L', 'P', '1'):
                read_label(path)  # mmseg would cut 16 bits to 8


def cached_report(sets: Mapping[str, Sequence[FilePairs]]) -> dict[str, Any]:
    """What `scan` found in these files, or finds now. A look that took long and found no fault is kept."""
    place = _place(sets)
    try:
        return json.loads(place.read_text())
    except (OSError, ValueError):  # there is none, or it is no longer whole
        pass
    start = time.monotonic()
    report = scan(sets, bar='looking at all data once, --no-check skips it')
    if not report['faults'] and time.monotonic() - start > WORTH:
        write_report_file(report, place)
    return report


def check_config(cfg: Config, workers: int | None = None, out: str | None = None) -> None:
    """Looks at every pixel of a config's data sets, prints tables of what they hold and what is odd.

    Args:
        cfg: of a training.
        workers: files at a time; as many as there are cores, up to 16, if None.
        out: file for the whole report, JSON.

    Raises:
        FileNotFoundError, UsageError: something is wrong; says what, where and what to do.
    """
    roles = ['train_dataloader', 'val_dataloader', 'test_dataloader']
    if cfg.get('test_dataloader') and cfg.test_dataloader.dataset == (cfg.get('val_dataloader') or {}).get('dataset'):
        roles.pop()
    sets = all_files(cfg, roles)
    report = scan(sets, workers)
    print(format_report(report))
    for note in report['notes']:
        print(f'note: {note}')
    if out:
        try:
            write_whole(Path(out), _as_text(report))
        except OSError as error:
            raise UsageError(f'--out {out} cannot be written ({error.strerror}): name another place') from error
    raise_if_faulty(report)
    cache_report(report, sets)


def cache_report(report: Mapping[str, Any], sets: Mapping[str, Sequence[FilePairs]]) -> None:
    """Keeps what was found in these files for `cached_report`."""
    write_report_file(report, _place(sets))


def _as_text(report: Mapping[str, Any]) -> bytes:
    return (json.dumps(report, indent=1) + '\n').encode()


def write_report_file(report: Mapping[str, Any], place: Path) -> None:
    """Writes a report to a file, if that can be written."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, _as_text(report))
    except OSError:  # then the next training looks again
        pass


def _place(sets: Mapping[str, Sequence[FilePairs]]) -> Path:
    """Where the report is kept: another file once an image, a label, or what its values mean has changed."""

    def stamp(path: Path | None) -> tuple[str, int, int] | None:
        if path is None or not path.exists():
            return None
        found = path.stat()
        return str(path.absolute()), found.st_size, found.st_mtime_ns

    content = {
        role: [
            ([(stamp(i), stamp(m)) for i, m in part.pairs], [*part.names.items()], [*part.classes]) for part in parts
        ]
        for role, parts in sets.items()
    }
    state = hashlib.sha256(json.dumps([FORMAT, content]).encode()).hexdigest()[:32]
    return Path(torch.hub.get_dir()) / 'mmseg_volo' / 'checked' / f'{state}.json'
