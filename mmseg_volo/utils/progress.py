"""Show progress: a bar on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

DELAY = 2.0  # seconds: shorter work shows nothing
LINE = '{desc}: {n_fmt}/{total_fmt}, {rate_noinv_fmt}, {remaining} left'
ENDLESS = '{desc}: {n_fmt}, {rate_noinv_fmt}'


class ProgressBar(tqdm):
    """tqdm's bar with rate and time left, shown after two seconds.

    If stderr is no terminal, a line is written instead, after two seconds and then every `pause`: in a file each step
    of a bar would be a line.

    Args:
        iterable: to iterate over; without it, `update` counts.
        desc: label of the bar.
        total: number of items; the length of `iterable` if None.
        unit: name of an item, e.g. 'image'.
        delay: seconds before it is shown. With 0 the last line is always shown.
        pause: seconds between lines.
        leave: whether the bar stays when all is done.
        initial: number of items already done.
        unit_scale: whether to write 1.2M.
        unit_divisor: 1000, or 1024 for bytes.
        disable: show nothing.
    """

    delay: float

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str = '',
        total: int | None = None,
        unit: str = 'file',
        delay: float = DELAY,
        pause: float = 10.0,
        leave: bool = True,
        initial: int = 0,
        unit_scale: bool = False,
        unit_divisor: int = 1000,
        disable: bool = False,
    ):
        self._plain, self._pause = not sys.stderr.isatty(), pause
        style: dict[str, Any] = dict(dynamic_ncols=True, position=0)
        if self._plain:
            known = total is not None or hasattr(iterable, '__len__')
            style |= dict(bar_format=LINE if known else ENDLESS, mininterval=DELAY, miniters=1)
        numbers = dict(initial=initial, unit_scale=unit_scale, unit_divisor=unit_divisor)
        super().__init__(
            iterable,
            desc,
            total,
            leave,
            unit=' ' * self._plain + unit,
            delay=delay or 1e-9,
            disable=disable,
            **numbers,
            **style,
        )

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self.iterable:
                yield item
                self.update()
        finally:
            self.close()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write the bar or the line; tqdm calls this when an update is due."""
        if not self._plain:
            return super().display(msg, pos)
        self.mininterval = self._pause
        self.fp.write(f'{self}\n' if msg is None else f'{msg}\n')
        self.fp.flush()
        return True

    def make_room(self) -> None:
        """Clear the bar before someone else prints a line; in a file, that line replaces the bar's next one."""
        if self.disable:
            return
        if self._plain:
            self.last_print_t, self.last_print_n = time.time(), self.n
        elif self.last_print_t > self.start_t:
            self.clear()

    def close(self) -> None:
        if self._plain and not self.disable:
            shown = self.mininterval == self._pause
            if self.leave and (self.n != self.last_print_n if shown else self.delay < DELAY):
                self.display()
            self.delay = math.inf  # keeps tqdm from writing anything more
        super().close()
