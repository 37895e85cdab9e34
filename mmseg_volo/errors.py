"""The one error that tools show without a traceback."""

from __future__ import annotations

import os
import sys

LAUNCHED = 'MMSEG_VOLO_LAUNCHED'  # set in processes of `launch.py`


class UsageError(ValueError):
    """What the user gave cannot work; the message says what was given, what was expected and what to do."""


def say(error: Exception) -> None:
    """One line on stderr; a process of `launch.py` leaves it to that one, which says it once for all processes."""
    if LAUNCHED in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
    else:
        print(f'error: {error}', file=sys.stderr)
