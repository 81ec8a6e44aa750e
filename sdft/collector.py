"""Python's search for reference cycles, switched off for a while."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Do not look for cycles meanwhile.

    For work that makes hundreds of thousands of records which all stay: each search goes over all
    of them and finds nothing, which takes a third of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
