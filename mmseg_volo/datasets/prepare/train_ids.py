"""Make Cityscapes' training labels, 19 classes and 255 for ignored pixels, with cityscapesscripts' code and table."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.files import remove_scratch_files, scratch_path
from mmseg_volo.utils.locks import Lock, describe_holder, read_holder
from mmseg_volo.utils.parallel import map_parallel

PNG_END = b'\x00\x00\x00\x00IEND\xaeB`\x82'  # missing in a PNG that was cut off
LOCK = '.making_labels.lock'
FEW = 16  # below this many files, starting processes takes longer than the work


def complete_png(path: Path) -> bool:
    """Return whether a PNG exists and was written to its end."""
    try:
        with path.open('rb') as file:
            file.seek(-len(PNG_END), os.SEEK_END)
            return file.read() == PNG_END
    except OSError:  # missing, or shorter than that
        return False


def train_id_table() -> np.ndarray:
    """Tabulate train ids by label id: int16 (256,), -1 where Cityscapes has no such id."""
    from cityscapesscripts.helpers.labels import labels

    table = np.full(256, -1, np.int16)
    for label in labels:
        if label.id >= 0:  # the licence plate has id -1, which no label image contains
            table[label.id] = label.trainId
    return table


def from_label_ids(source: str, target: str) -> None:
    """Write the train ids of a `*_labelIds.png`.

    Raises:
        OSError, ValueError: it cannot be read, or holds other values than label ids.
    """
    with Image.open(source, formats=['PNG']) as picture:
        ids = np.array(picture)
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise ValueError(f'expected label ids in one 8-bit channel, got mode {picture.mode}')
    mapped = train_id_table()[ids]
    if (mapped < 0).any():
        raise ValueError(f'it holds {np.unique(ids[mapped < 0]).tolist()}, expected label ids of 0 to 33')
    Image.fromarray(mapped.astype(np.uint8)).save(target)


def make_train_ids(jobs: Sequence[tuple[Path, Path]], workers: int) -> list[str]:
    """Make training labels from polygon files (`*_polygons.json`) or label images (`*_labelIds.png`).

    Each file appears under its name when it is complete. Polygons are drawn in processes, as drawing in Python holds
    the GIL. The processes are spawned, as forking beside OpenMP's threads can hang, and load cityscapesscripts only.

    Args:
        jobs: (source, label to write).
        workers: how many at a time.

    Returns:
        The failures, a sentence per file; the remaining files are written.

    Raises:
        UsageError: the folder cannot be written to, or another process makes labels there.
    """
    writable([label for _, label in jobs])
    folders = sorted({label.parent for _, label in jobs})
    with Lock(Path(os.path.commonpath(folders)) / LOCK) as lock:
        if not lock.take():
            raise UsageError(
                f'training labels are being made by {describe_holder(read_holder(lock.path))}: wait until it ends'
            )
        lock.tell()
        for folder in folders:
            remove_scratch_files(folder)
        return _make(jobs, workers)


def _make(jobs: Sequence[tuple[Path, Path]], workers: int) -> list[str]:
    from cityscapesscripts.preparation.json2labelImg import json2labelImg

    polygons = {str(scratch_path(label)): (source, label) for source, label in jobs if source.suffix == '.json'}
    images = {str(scratch_path(label)): (source, label) for source, label in jobs if source.suffix != '.json'}
    failed: list[str] = []
    for todo, work, extra in ((polygons, json2labelImg, ('trainIds',)), (images, from_label_ids, ())):
        if not todo:
            continue
        processes = todo is polygons and workers > 1 and len(todo) >= FEW
        spawn = multiprocessing.get_context('spawn')
        pool = ProcessPoolExecutor(workers, spawn) if processes else ThreadPoolExecutor(workers)
        arguments = [(str(source), temporary, *extra) for temporary, (source, _) in todo.items()]
        try:
            for (source, temporary, *_), error in map_parallel(pool, work, arguments, 'training labels'):
                try:
                    if error is not None:
                        raise error
                    os.replace(temporary, todo[temporary][1])
                except (Exception, SystemExit) as reason:
                    failed.append(f'{source} cannot be converted ({_reason(reason)})')
        finally:
            for temporary in todo:
                Path(temporary).unlink(missing_ok=True)
    return failed


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):  # cityscapesscripts prints its reason, then exits
        return 'cityscapesscripts gave up, see its output'
    return f'{type(error).__name__}: {" ".join(str(error).split())}'


def writable(paths: Sequence[Path]) -> None:
    """Check that the folders of files are writable.

    Raises:
        UsageError: a folder is read-only or full.
    """
    for folder in sorted({path.parent for path in paths}):
        probe = scratch_path(folder / 'probe')
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f'{folder} cannot be written to ({error.strerror}), and {len(paths)} training labels are to be made: '
                f'run this where the data set is writable, or copy it'
            ) from error
