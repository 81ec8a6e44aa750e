"""Work that is prepared while the device is busy with the work before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def prefetched(jobs: Iterable[Callable[[], Result]], *, depth: int) -> Iterator[Result]:
    """Yield each job's result in order, keeping up to `depth` jobs ahead in one thread.

    A job's exception is raised where its result would have come. Jobs must not draw from a random
    stream that others share, for how far ahead they run is not defined.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        try:
            for job in jobs:
                pending.append(pool.submit(job))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
