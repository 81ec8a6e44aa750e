"""Processes that read pictures for the training process, as long as a run lasts.

In: picture jobs with the addresses of their uses. Out: a result to wait for, a job.
Processes are spawned, not forked, so that they are the same on every system; they import neither
torch nor anything of the engine.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait

from sdft.dataset.augment import Drawn, PictureJob, draw_picture
from sdft.errors import EnvironmentFault
from sdft.streams import Address
from sdft.windows import outlive_closing

MAX_PROCESSES = 61
"""Windows lets one process wait for no more."""


class PictureWorkers:
    """Draws pictures in other processes, or where it is asked if there are none."""

    def __init__(self, num_workers: int) -> None:
        """Start nothing yet; processes start with the first jobs."""
        self.num_workers = min(num_workers, MAX_PROCESSES)
        self._pool: ProcessPoolExecutor | None = None
        if self.num_workers:
            self._pool = ProcessPoolExecutor(
                self.num_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=become_worker,
            )

    def begin(self, job: PictureJob, address: Address) -> Callable[[], Drawn]:
        """Ask for a picture; the result waits for it.

        Raises: EnvironmentFault, then or on waiting, where a worker process died.
        """
        if self._pool is None:
            return partial(draw_picture, job, address)
        try:
            future = self._pool.submit(draw_picture, job, address)
        except BrokenProcessPool as error:
            raise _died() from error

        def result() -> Drawn:
            try:
                return future.result()
            except BrokenProcessPool as error:
                raise _died() from error

        return result

    def close(self) -> None:
        """End the processes; jobs that are not begun are dropped."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _died() -> EnvironmentFault:
    return EnvironmentFault(
        what="a process that reads images was ended from outside, most often for lack of memory",
        where="max_data_loader_n_workers",
        fix="close other programs, or set max_data_loader_n_workers to fewer or to 0",
        key="picture_worker_ended",
    )


def become_worker() -> None:
    """Let this process end with its parent, and leave Ctrl-C to it."""
    # Ctrl-C reaches every process of a terminal; the training process alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outlive_closing()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """End this process when its parent is gone; a killed parent could not ask it to."""
    wait([sentinel])
    os._exit(1)
