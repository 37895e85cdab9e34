"""Explain system errors of a training or a test in a sentence: full disks, shared memory, killed data workers."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmseg_volo.errors import UsageError

SHARED = Path('/dev/shm')  # through which data workers pass images
SPARE = 1 << 20  # bytes: a disk with less counts as full
FULL = (errno.ENOSPC, errno.EDQUOT)
MANY = (errno.EMFILE, errno.ENFILE)
SHRINK = 'enlarge it (docker run --shm-size=8g), or use no data workers: --cfg-options train_dataloader.num_workers=0'
WORKER = re.compile(r'DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)(?: is killed by signal: ([\w ]+))?')


@contextmanager
def naming_system_errors(work_dir: str | Path) -> Iterator[None]:
    """Turn errors of the operating system into a UsageError that explains them.

    Args:
        work_dir: folder that is written to.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of our output is gone
        raise
    except (ConnectionError, EOFError) as error:  # of a worker that should pass an image
        raise UsageError(_killed('')) from error
    except FileNotFoundError as error:
        if error.errno is None or error.filename:  # a file that the user named
            raise
        raise UsageError(_killed('')) from error  # the socket of a data worker
    except OSError as error:
        raise UsageError(_system_message(error, Path(work_dir))) from error
    except RuntimeError as error:
        if message := _worker_message(str(error)):
            raise UsageError(message) from error
        raise


def _system_message(error: OSError, work_dir: Path) -> str:
    reason = error.strerror or str(error)
    if error.errno in FULL and error.filename is None and _is_full(SHARED) and not _is_full(work_dir):
        return f'{SHARED}, through which data workers pass images, is full: {SHRINK}'
    if error.errno in MANY:
        return f'{reason}: raise the limit with ulimit -n 65536, or use fewer data workers (num_workers)'
    advice = 'check that it exists and is writable'
    if error.errno in FULL:
        advice = 'free some space, or name another --work-dir'
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        advice = 'there is a file in place of a folder, name another folder'
    return f'{error.filename or f"a file of {work_dir}"} cannot be read or written ({reason}): {advice}'


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < SPARE
    except OSError:  # no such folder
        return False


def _worker_message(text: str) -> str:
    """Explain an error of a torch data worker; empty if `text` is another error."""
    match = WORKER.search(text)
    if match is None:
        return ''
    if 'Bus error' in text or 'shared memory' in text:
        return f'a data worker died because {SHARED} is full: {SHRINK}'
    how = f' ({match[2].strip()})' if match[2] else ''
    return _killed(f' {match[1]}', how)


def _killed(worker: str, how: str = '') -> str:
    return (
        f'data worker{worker} was killed{how}, as happens when memory runs out: use fewer workers '
        f'(--cfg-options train_dataloader.num_workers=1); --resume continues from the last checkpoint'
    )
