"""Progress with rate and time left: a bar on a terminal, a line now and then where the output goes to a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tqdm import tqdm

LINES = 10.0  # seconds from one line to the next
DELAY = 2.0  # seconds after which what does not stay is shown


class _Lines:
    """A stream for tqdm that writes each state of a bar on a line of its own."""

    encoding = 'utf-8'

    def write(self, text: str) -> None:
        if text := text.strip('\r\n '):
            sys.stderr.write(text + '\n')

    def flush(self) -> None:
        sys.stderr.flush()


def progress(items: Iterable | None, what: str, unit: str, total: int | None = None, leave: bool = True) -> tqdm:
    """tqdm on stderr.

    Args:
        items: to go through; None for one that is told by `update`.
        what, unit: in front of the bar, and what is counted.
        total: how many there are; `len(items)` if None.
        leave: whether the last state stays.
    """
    how = dict(desc=what, total=total, leave=leave, unit=unit, delay=0 if leave else DELAY)
    if sys.stderr.isatty():
        return tqdm(items, file=sys.stderr, dynamic_ncols=True, **how)
    return tqdm(items, file=_Lines(), mininterval=LINES, maxinterval=LINES, ncols=80, position=0, **how)
