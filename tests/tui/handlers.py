"""Measures for how long the event loop of an interface is held in one go."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from time import thread_time

from sdft.tui.shell import quiet_collector

LONGEST_S = 0.05


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Python's collector as quiet as the commands do."""
    gc.collect()
    thresholds = gc.get_threshold()
    quiet_collector()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


@contextmanager
def timed_handlers() -> Iterator[list[float]]:
    """Collect what each turn of the event loop took.

    Units: seconds of this thread's processor time: what other programs take does not count.
    """
    busy_s: list[float] = []
    original = asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begun_s = thread_time()
        original(handle)
        busy_s.append(thread_time() - begun_s)

    asyncio.events.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield busy_s
    finally:
        asyncio.events.Handle._run = original  # type: ignore[method-assign]
