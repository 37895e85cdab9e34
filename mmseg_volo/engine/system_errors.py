"""What goes wrong around a training or a test, in a sentence: disks, memory that is shared, data workers that die."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmseg_volo.errors import UsageError

SHARED = Path('/dev/shm')  # through which data workers hand over images
SPARE = 1 << 20  # bytes: a disk with less is taken for full
FULL = (errno.ENOSPC, errno.EDQUOT)
MANY = (errno.EMFILE, errno.ENFILE)
SHRINK = 'enlarge it (docker run --shm-size=8g), or take fewer: --cfg-options train_dataloader.num_workers=0'
WORKER = re.compile(r'DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)(?: is killed by signal: ([\w ]+))?')


@contextmanager
def naming_system_errors(work_dir: str | Path) -> Iterator[None]:
    """Inside, what the system refuses ends in a UsageError that says it, and not in a traceback.

    Args:
        work_dir: that is written to.
    """
    try:
        yield
    except BrokenPipeError:  # who reads what we print is gone
        raise
    except (ConnectionError, EOFError) as error:  # where a worker should hand over an image
        raise UsageError(_killed('')) from error
    except FileNotFoundError as error:
        if error.errno is None or error.filename:  # the user's
            raise
        raise UsageError(_killed('')) from error  # the socket of a worker
    except OSError as error:
        raise UsageError(_of_system(error, Path(work_dir))) from error
    except RuntimeError as error:
        if text := _of_workers(str(error)):
            raise UsageError(text) from error
        raise


def _of_system(error: OSError, work_dir: Path) -> str:
    what = error.strerror or str(error)
    if error.errno in FULL and error.filename is None and _is_full(SHARED) and not _is_full(work_dir):
        return f'{SHARED}, through which data workers hand over images, is full: {SHRINK}'
    if error.errno in MANY:
        return f'{what}: allow more with ulimit -n 65536, or take fewer data workers (num_workers)'
    advice = 'see whether it is there and writable'
    if error.errno in FULL:
        advice = 'make room, or name another --work-dir'
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        advice = 'a file stands where a folder should be, name another place'
    return f'{error.filename or f"what belongs into {work_dir}"} cannot be read or written ({what}): {advice}'


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < SPARE
    except OSError:  # there is none
        return False


def _of_workers(text: str) -> str:
    found = WORKER.search(text)
    if found is None:
        return ''
    if 'Bus error' in text or 'shared memory' in text:
        return f'a data worker ended, as {SHARED} is full: {SHRINK}'
    how = f' ({found[2].strip()})' if found[2] else ''
    return _killed(f' {found[1]}', how)


def _killed(worker: str, how: str = '') -> str:
    return (
        f'data worker{worker} was killed{how}, as the system does when memory runs out: take fewer '
        f'(--cfg-options train_dataloader.num_workers=1); --resume goes on from the last checkpoint'
    )
