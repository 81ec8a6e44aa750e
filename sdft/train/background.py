"""Saves while the training goes on: copies first, then files, in one thread.

In: jobs that belong together. Out: files; the loop waits only where it would change what is still
being copied. Weights change in the optimizer's step alone, so the copies are made beside the
forward and backward pass after the save.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from sdft.events import Emit, Notice
from sdft.units import format_bytes

SPARE_BYTES = 1 << 30
"""Main memory that copies leave to everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveJob:
    """One file or folder to write."""

    name: str
    content: Any
    """What to write; its tensors may be those that are trained on."""
    num_bytes: int
    """What a copy takes; 0 where the content is a copy already."""
    copied: Callable[[Any], Any]
    """Returns the content with tensors of its own."""
    write: Callable[[Any], None]


class BackgroundWriter:
    """At most one set of jobs is at work; the next one waits for it.

    What goes wrong in the thread is raised by the next call of any method, once.
    """

    def __init__(self, *, emit: Emit, available_bytes: Callable[[], int] | None = None) -> None:
        self._emit = emit
        self._available_bytes = available_bytes or (lambda: psutil.virtual_memory().available)
        self._thread: threading.Thread | None = None
        self._copied = threading.Event()
        self._copied.set()
        self._error: BaseException | None = None
        self._said_short = False
        self.waited_s = 0.0
        """How long the loop has waited for copies and files altogether."""

    def submit(self, jobs: Sequence[SaveJob]) -> None:
        """Begin to write; returns at once if no other set is at work and memory is enough."""
        self.wait()
        if not jobs:
            return
        needed = sum(job.num_bytes for job in jobs)
        if needed and needed + SPARE_BYTES > self._available_bytes():
            self._write_in_place(jobs, needed)
            return
        self._copied.clear()
        ready = _recorded_event()
        self._thread = threading.Thread(
            target=self._work, args=(list(jobs), ready), name="save", daemon=True
        )
        self._thread.start()

    def wait_for_copies(self) -> None:
        """Return when what is trained on may change. To be called before each optimizer step."""
        if not self._copied.is_set():
            started_s = time.monotonic()
            self._copied.wait()
            self.waited_s += time.monotonic() - started_s
        self._raise()

    def wait(self) -> None:
        """Return when all is written."""
        if self._thread is not None:
            started_s = time.monotonic()
            self._thread.join()
            self.waited_s += time.monotonic() - started_s
            self._thread = None
        self._raise()

    def _write_in_place(self, jobs: Sequence[SaveJob], needed: int) -> None:
        if not self._said_short:
            self._said_short = True
            message = (
                f"a copy of what is saved takes {format_bytes(needed)} of main memory, and"
                f" {format_bytes(self._available_bytes())} are free: training waits for each save"
            )
            self._emit(Notice(severity="warning", topic="save", message=message))
        started_s = time.monotonic()
        for job in jobs:
            job.write(job.content)
        self.waited_s += time.monotonic() - started_s

    def _work(self, jobs: list[SaveJob], ready: Any) -> None:
        try:
            with _beside(ready):
                contents = [job.copied(job.content) for job in jobs]
            self._copied.set()
            while jobs:
                job, content = jobs.pop(0), contents.pop(0)
                job.write(content)
                del job, content
        except BaseException as error:  # noqa: BLE001 - raised where the loop asks next
            self._error = error
        finally:
            self._copied.set()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def _recorded_event() -> Any:
    """Return the moment on the GPU at which the weights are what is to be saved."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
    ready.record()
    return ready


def _beside(ready: Any) -> contextlib.AbstractContextManager[Any]:
    """Let copies from the GPU run beside what the training asks of it."""
    if ready is None:
        return contextlib.nullcontext()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_event(ready)
    return torch.cuda.stream(stream)
