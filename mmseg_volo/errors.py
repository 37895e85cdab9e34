"""The one error that tools show without a traceback."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

LAUNCHED = 'MMSEG_VOLO_LAUNCHED'  # set in processes of `launch.py`


class UsageError(ValueError):
    """What the user gave cannot work; the message says what was given, what was expected and what to do."""


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


def fall_silent() -> None:
    """When nobody reads any more what is printed, as behind `| head`: Python would complain of it at exit."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError), open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
