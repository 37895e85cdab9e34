"""Reading ahead and writing behind, each in a thread of its own, with few things under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar('T')
COUNT = 4  # things that wait between two threads


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, of which up to COUNT are made in another thread before they are asked for."""
    source, end = iter(items), object()
    pool = ThreadPoolExecutor(1)
    waiting: deque[Future] = deque(pool.submit(next, source, end) for _ in range(COUNT))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(source, Generator):
            source.close()


class Behind:
    """Calls functions one after the other in another thread; `with` waits for them.

    What one raises comes out of a later `submit` or of `with`, and the calls after it are left out.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future] = deque()

    def submit(self, call: Callable[..., Any], *args: Any) -> None:
        """Calls it later; waits while COUNT calls are under way."""
        while len(self._waiting) >= COUNT:
            self._settle()
        self._waiting.append(self._pool.submit(call, *args))

    def _settle(self) -> None:
        try:
            self._waiting.popleft().result()
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is not None:
                self._drop()
            while self._waiting:
                self._settle()
        finally:
            self._pool.shutdown()
