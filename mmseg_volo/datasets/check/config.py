"""Check a config's data sets before work starts: the headers of their files, or every pixel once.

`mmseg-volo check CONFIG` checks every pixel; so does every training, unless that was done since a file last changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmseg_volo.datasets.check.files import IGNORED, PairCheck, check_pair
from mmseg_volo.datasets.check.survey import FilePairs, format_report, raise_if_faulty, scan
from mmseg_volo.datasets.transforms import label_table
from mmseg_volo.errors import UsageError
from mmseg_volo.io.image import read_label
from mmseg_volo.utils.files import write_whole
from mmseg_volo.utils.progress import ProgressBar

WORTH = 2.0  # seconds: reports of shorter checks are not kept
FORMAT = 1  # of kept reports; changing it makes every data set be checked anew


def check_data(cfg: Config, roles: Sequence[str], pixels: bool) -> dict[str, Any] | None:
    """Check the data sets of a config, and that its heads have as many classes.

    Args:
        cfg: of a training or a test.
        roles: which data loaders; those that the config lacks are left out.
        pixels: whether to check every pixel, if that was not done before, and print oddities; else only headers.

    Returns:
        The report of `scan`, if all pixels were checked.

    Raises:
        FileNotFoundError, UsageError: something is wrong; names what, where and what to do.
    """
    sets = all_files(cfg, roles)
    if not pixels:
        for role, members in sets.items():
            _check_headers(members, role)
        return None
    report = cached_report(sets)
    raise_if_faulty(report)
    for note in report['notes']:
        print(f'note: {note}')
    return report


def all_files(cfg: Config, roles: Sequence[str]) -> dict[str, list[FilePairs]]:
    """List the files of a config's data sets, and check that the model's heads have as many classes.

    Args:
        cfg: of a training or a test.
        roles: which data loaders; those that the config lacks are left out.

    Raises:
        FileNotFoundError, UsageError: there are no such files, or the numbers of classes differ.
    """
    sets = {role: files_of(cfg[role].dataset, role) for role in roles if cfg.get(role)}
    for role, members in sets.items():
        _check_heads(cfg.get('model') or {}, members[0].classes, role)
    return sets


def files_of(dataset: ConfigDict, what: str) -> list[FilePairs]:
    """List the files of a data set, or of those that it wraps (`RepeatDataset`, `ConcatDataset`, ...).

    Args:
        dataset: config of an mmseg data set.
        what: its role, for messages, e.g. `train_dataloader`.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        UsageError: it cannot be built.
    """
    if members := dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else []):
        return [files for member in members for files in files_of(member, what)]
    try:
        with DefaultScope.overwrite_default_scope('mmseg'):
            built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f'{what}: {" ".join(str(error).split())}') from error
    folder = Path(built.data_prefix['img_path'])
    root = f'set data_root (now {dataset.get("data_root")!r}), e.g. --cfg-options data_root=PATH, or see data/README.md'
    if not folder.is_dir():
        raise FileNotFoundError(f'{what}: there is no folder {folder.absolute()}; {root}')
    built.serialize_data = False  # mmengine cannot serialise an empty list
    built.full_init()
    if not built.data_list:
        here = sorted(p.name for p in folder.iterdir())[:5]
        raise FileNotFoundError(f'{what}: no *{built.img_suffix} under {folder.absolute()}, which holds {here}; {root}')
    pairs = [
        (Path(item['img_path']), Path(item['seg_map_path']) if 'seg_map_path' in item else None)
        for item in built.data_list
    ]
    if not (classes := built.metainfo.get('classes')):
        raise UsageError(f'{what}: the data set names no classes: add metainfo=dict(classes=(...))')
    names, check = reader_of(built, built.data_list[0], classes)
    return [FilePairs(pairs, names, classes, check)]


def refuse_output_in_data(dataset: ConfigDict, folder: str, option: str) -> None:
    """Refuse a folder for results among a data set's files: results would replace files, or be taken for data.

    Args:
        dataset: config of an mmseg data set.
        folder: for results.
        option: name of the option that sets it, for the message.

    Raises:
        FileNotFoundError, UsageError: see `files_of`; or the folder is one of the data set's.
    """
    out = os.path.realpath(folder)
    pairs = [pair for files in files_of(dataset, 'test_dataloader') for pair in files.pairs]
    for parent in sorted({path.parent for pair in pairs for path in pair if path is not None}):
        if os.path.join(out, '').startswith(os.path.join(os.path.realpath(parent), '')):
            raise UsageError(f'{option} {folder} lies in {parent}, which holds files of the data set: name another one')


def reader_of(dataset: Any, item: Mapping[str, Any], classes: Sequence[str]) -> tuple[dict[int, str], PairCheck]:
    """Return the meaning of a data set's label values and the function that checks its files.

    These are its own `value_names` and `check_pair` if it reads other files than mmseg does, else `classes_by_value`
    and `files.check_pair`.
    """
    if hasattr(dataset, 'value_names'):
        return dataset.value_names, dataset.check_pair
    return classes_by_value(item, classes, getattr(dataset, 'ignore_index', 255)), check_pair


def classes_by_value(item: Mapping[str, Any], classes: Sequence[str], ignore_index: int) -> dict[int, str]:
    """Map label values to the name of a class, or 'ignored'.

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
    """Compare the heads' numbers of classes with the data set's: mmseg trains a head of 150 classes on 19 silently."""
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
    """Check that every image and label of a data set exists and has the header of an image file.

    Args:
        dataset: config of an mmseg data set.
        what: its role, for messages, e.g. `train_dataloader`.

    Returns:
        The number of images.

    Raises:
        FileNotFoundError: a folder or a file is missing.
        UsageError: a file is empty or no image, or a label has colours or more than 8 bits.
    """
    members = files_of(dataset, what)
    _check_headers(members, what)
    return sum(len(files.pairs) for files in members)


def _check_headers(members: Sequence[FilePairs], what: str) -> None:
    pairs = [(*pair, files.check) for files in members for pair in files.pairs]
    for image, label, check in ProgressBar(pairs, desc=f'checking files of {what}', unit='image', leave=False):
        for path in filter(None, (image, label)):
            if not path.is_file():
                raise FileNotFoundError(f'{what}: {path} is missing: every image needs a label of the same name')
            if check is not check_pair:  # the data set's own, for files that Pillow may not know
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
    """Return the kept report on these files, or scan them now and keep the report if it took long and has no fault."""
    path = _report_path(sets)
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # there is none, or it is no longer whole
        pass
    start = time.monotonic()
    report = scan(sets, bar='checking all data once, --no-check skips it')
    if not report['faults'] and time.monotonic() - start > WORTH:
        write_report_file(report, path)
    return report


def check_config(cfg: Config, workers: int | None = None, out: str | None = None) -> None:
    """Check every pixel of a config's data sets, and print tables of their content and notes on oddities.

    Args:
        cfg: of a training.
        workers: files at a time; as many as there are cores, up to 16, if None.
        out: file for the whole report, JSON.

    Raises:
        FileNotFoundError, UsageError: something is wrong; names what, where and what to do.
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
    """Keep the report on these files for `cached_report`."""
    write_report_file(report, _report_path(sets))


def _as_text(report: Mapping[str, Any]) -> bytes:
    return (json.dumps(report, indent=1) + '\n').encode()


def write_report_file(report: Mapping[str, Any], path: Path) -> None:
    """Write a report to a file, if that is possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _as_text(report))
    except OSError:  # then the next training checks again
        pass


def _report_path(sets: Mapping[str, Sequence[FilePairs]]) -> Path:
    """Return the file of the kept report: a new name once an image, a label or the meaning of its values changes."""

    def stamp(path: Path | None) -> tuple[str, int, int] | None:
        if path is None or not path.exists():
            return None
        status = path.stat()
        return str(path.absolute()), status.st_size, status.st_mtime_ns

    content = {
        role: [
            ([(stamp(i), stamp(m)) for i, m in files.pairs], [*files.names.items()], [*files.classes])
            for files in members
        ]
        for role, members in sets.items()
    }
    state = hashlib.sha256(json.dumps([FORMAT, content]).encode()).hexdigest()[:32]
    return Path(torch.hub.get_dir()) / 'mmseg_volo' / 'checked' / f'{state}.json'
