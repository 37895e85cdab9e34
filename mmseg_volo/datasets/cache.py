"""Keep decoded copies of a data set's files, which loading maps into memory: `tools/prepare_data.py ... --cache`.

The copy of `ROOT/a/b.png` is `ROOT/mmseg_volo_cache/a/b.png.SIZE-MTIME.npy`, with the size in bytes and the
modification time in nanoseconds of its source: once the source changes, its old copy is not found. Images are uint8 RGB
(H, W, 3), labels uint8 (H, W).
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.files import AtomicFile
from mmseg_volo.utils.locks import Lock, describe_holder, read_holder
from mmseg_volo.utils.parallel import map_parallel

FOLDER = 'mmseg_volo_cache'
SPARE = 1 << 30  # bytes to leave free on the disk


def copy_of(source: Path, root: Path) -> Path:
    """Return the path of the decoded copy of a data set's file, whether or not it exists.

    Args:
        source: the file; its present size and modification time count.
        root: folder of the data set, above it.
    """
    status = source.stat()
    return root / FOLDER / source.relative_to(root).parent / f'{source.name}.{status.st_size}-{status.st_mtime_ns}.npy'


def mapped(source: str | Path) -> np.ndarray | None:
    """Map the decoded copy of a file into memory, read-only; None if the file has no up-to-date copy.

    The nearest folder `mmseg_volo_cache` above the file is searched. If there is such a folder but no such copy, a
    warning is issued once.
    """
    source = Path(source)
    root = next((folder for folder in source.parents if (folder / FOLDER).is_dir()), None)
    if root is None:
        return None
    try:
        return np.load(copy_of(source, root), mmap_mode='r')
    except (OSError, ValueError):  # missing, or cut off by a power failure
        warnings.warn(
            f'{root / FOLDER} lacks copies of files, or files have changed since: these are decoded each time; '
            f'complete it with tools/prepare_data.py ... {root} --cache',
            stacklevel=2,
        )
        return None


def fill(root: Path, files: Mapping[Path, Callable[[Path], np.ndarray]], size: int, workers: int) -> int:
    """Write the missing copies atomically, and remove those whose source is gone or has changed.

    Args:
        root: folder of the data set.
        files: file -> function that reads it.
        size: of all copies in bytes.
        workers: files at a time.

    Returns:
        The number of copies written.

    Raises:
        UsageError: the disk is too small, the folder is not writable, or another process is filling it.
    """
    with Lock(root / FOLDER / '.fill.lock') as lock:
        try:
            free = lock.take()
        except OSError as error:
            raise UsageError(f'{root / FOLDER} cannot be written to ({error.strerror}): omit --cache') from error
        if not free:  # each of the two processes would remove the files that the other one writes
            raise UsageError(
                f'{root / FOLDER} is being filled by {describe_holder(read_holder(lock.path))}: wait until it ends'
            )
        lock.tell()
        return _fill(root, files, size, workers)


def _fill(root: Path, files: Mapping[Path, Callable[[Path], np.ndarray]], size: int, workers: int) -> int:
    wanted = {copy_of(path, root): path for path in files}
    todo = {copy: path for copy, path in wanted.items() if not _is_whole(copy)}
    stale = [path for path in (root / FOLDER).rglob('*.npy') if path not in wanted or path in todo]
    needed = size * len(todo) // max(1, len(files))
    room = shutil.disk_usage(root).free + sum(path.stat().st_size for path in stale)
    state = f'{root / FOLDER}: {len(files)} files take {size / 1e9:.1f} GB, {len(files) - len(todo)} are there'
    if needed + SPARE > room:
        raise UsageError(
            f'{state}, the others need {needed / 1e9:.1f} GB and {room / 1e9:.1f} GB are free: make room, or omit '
            f'--cache; training then decodes each file each time'
        )
    print(f'{state}; {room / 1e9:.1f} GB are free')
    for path in stale:
        path.unlink(missing_ok=True)
    done = 0
    jobs = [(path, copy, files[path]) for copy, path in todo.items()]
    for (_, copy, _), error in map_parallel(ThreadPoolExecutor(workers), _write, jobs, 'cache'):
        if isinstance(error, OSError):
            raise UsageError(
                f'{copy} cannot be written ({error.strerror}), {done} of {len(jobs)} files are: make room and '
                f'repeat the command to continue, or remove {root / FOLDER}'
            ) from error
        if error is not None:
            raise error
        done += 1
    return done


def _write(source: Path, copy: Path, read: Callable[[Path], np.ndarray]) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with AtomicFile(copy) as temporary:
        np.save(temporary, read(source))


def _is_whole(copy: Path) -> bool:
    """Whether there is a readable copy, not one cut off by a power failure."""
    try:
        np.load(copy, mmap_mode='r')
    except (OSError, ValueError):
        return False
    return True
