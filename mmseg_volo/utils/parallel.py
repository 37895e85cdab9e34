"""Read ahead and write behind in threads, with a bounded number of pending items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from mmseg_volo.errors import as_errors
from mmseg_volo.utils.progress import ProgressBar

T = TypeVar('T')
COUNT = 4  # items pending between two threads


def prefetch(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield the same items, up to COUNT of which another thread produces in advance."""
    source, end = iter(items), object()
    pool = ThreadPoolExecutor(1)
    waiting: deque[Future[Any]] = deque(pool.submit(next, source, end) for _ in range(COUNT))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(source, Generator):
            source.close()


class WriteBehind:
    """Call functions one after another in another thread; `with` waits for all of them.

    An exception of a call is raised by a later `submit` or by `with`, and the calls after it are dropped.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[object]] = deque()

    def submit(self, call: Callable[..., object], *args: object) -> None:
        """Queue a call; waits while COUNT calls are pending."""
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

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is not None:
                self._drop()
            while self._waiting:
                self._settle()
        finally:
            self._pool.shutdown()


def map_parallel(
    pool: Executor, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], what: str
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Run `work(*job)` for all jobs with a progress bar.

    Args:
        pool: shut down at the end, or as soon as the caller stops iterating.
        what: the name of the bar.

    Yields:
        (job, its result or the exception that it raised), in the order in which they finish.
    """
    if isinstance(pool, ThreadPoolExecutor):  # processes would have to import this package
        work = partial(_run, work)
    futures = {pool.submit(work, *job): job for job in jobs}
    try:
        for future in ProgressBar(as_completed(futures), total=len(jobs), desc=what, unit='file'):
            error = future.exception()
            yield futures[future], future.result() if error is None else error
    finally:
        pool.shutdown(cancel_futures=True)


def _run(work: Callable[..., Any], *job: Any) -> Any:
    with as_errors():
        return work(*job)
