"""The one error that tools show without a traceback."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

LAUNCHED = 'MMSEG_VOLO_LAUNCHED'  # set in processes of `launch.py`


class UsageError(ValueError):
    """What the user gave cannot work; the message says what was given, what was expected and what to do."""


@contextlib.contextmanager
def as_errors() -> Iterator[None]:
    """Inside, whatever is raised is an `Exception`, panics of Rust too, but for what is to end the process."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise RuntimeError(f'{type(error).__name__}: {error}') from error


def sentence(error: Exception) -> str:
    """What an error says; torch puts the traceback before what one of a data worker says in its last line."""
    text = str(error)
    if text.startswith('Caught ') and 'DataLoader' in text.partition('\n')[0]:
        return text.rstrip().rpartition('\n')[2].partition(': ')[2]
    return text


def say(error: Exception) -> None:
    """One line on stderr; a process of `launch.py` leaves it to that one, which says it once for all processes."""
    if LAUNCHED in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(UsageError(sentence(error)))
    else:
        print(f'error: {sentence(error)}', file=sys.stderr)
