"""Runs a labeler over many images: decoding, the model and the writing at the same time.

In: images and a Labeler. Out: each image's words, given to `write` as they come, in order.
Threads decode and resize ahead of the model, others write behind it; Pillow, numpy and the disk
all let other threads run meanwhile.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sdft.dataset.pixels import UnreadableImage, decode_rgb
from sdft.errors import EnvironmentFault
from sdft.events import (
    Emit,
    ItemRejected,
    SettingChosen,
    StageFinished,
    StageProgress,
    StageStarted,
)
from sdft.labelers.records import Labeler, Prepared, Words

NUM_WRITERS = 8
"""Each file is flushed to the disk, which is mostly waiting."""

MAX_UNWRITTEN = 64

_Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One image to label."""

    path: Path
    key: str
    """Names it wherever it lies; what is random about it depends on this."""
    place: Path | None = None
    """Where it would lie if its tar shard were unpacked; none where it lies in none."""

    @property
    def name(self) -> str:
        """Return what a table calls it."""
        return (self.place or self.path).as_posix()


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What a run did."""

    num_done: int
    rejected: tuple[tuple[Path, str], ...]
    """Images that could not be read, and why."""
    stopped: str | None
    """Why it ended before the last image."""
    batch_size: int
    duration_s: float

    @property
    def images_per_s(self) -> float:
        return self.num_done / self.duration_s if self.duration_s > 0 else 0.0


def label_images(
    tasks: Sequence[Task],
    labeler: Labeler,
    *,
    write: Callable[[Task, Words], None],
    stage: str,
    batch_size: int | None = None,
    num_workers: int | None = None,
    stop: Callable[[], str | None] = lambda: None,
    emit: Emit,
) -> Labelled:
    """Label every image that can be read. `write` is called by several threads.

    Without `batch_size` the labeler's own guess is tried. Where memory is short the batch is
    halved until it fits. When `stop` gives a reason, what is begun is written and the run ends.

    Raises: EnvironmentFault where not even one image fits in memory; what `write` raises.
    """
    run = _Run(
        labeler=labeler,
        write=write,
        stage=stage,
        batch_size=labeler.fixed_batch or batch_size or labeler.first_batch,
        emit=emit,
    )
    if labeler.fixed_batch and batch_size and batch_size != labeler.fixed_batch:
        reason = f"the model takes {labeler.fixed_batch} at once, not {batch_size}"
        emit(SettingChosen(name="batch_size", value=labeler.fixed_batch, reason=reason))
    started_s = time.monotonic()
    emit(StageStarted(stage=stage, total=len(tasks), unit="images"))
    stopped = run.all(tasks, num_workers or default_workers(), stop)
    duration_s = time.monotonic() - started_s
    emit(StageFinished(stage=stage, done=run.num_done, duration_s=duration_s))
    return Labelled(
        num_done=run.num_done,
        rejected=tuple(run.rejected),
        stopped=stopped,
        batch_size=run.batch_size,
        duration_s=duration_s,
    )


def default_workers() -> int:
    """Return a decoding thread for each core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@dataclass(slots=True, kw_only=True)
class _Run:
    labeler: Labeler
    write: Callable[[Task, Words], None]
    stage: str
    batch_size: int
    emit: Emit
    num_done: int = 0
    rejected: list[tuple[Path, str]] = field(default_factory=list)
    _writes: deque[Future[None]] = field(default_factory=deque)

    def all(
        self, tasks: Sequence[Task], num_workers: int, stop: Callable[[], str | None]
    ) -> str | None:
        decoders = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
        writers = ThreadPoolExecutor(NUM_WRITERS, thread_name_prefix="write")
        stopped = None
        try:
            for batch in self._batches(tasks, decoders, num_workers):
                self._label(batch, writers)
                stopped = stop()
                if stopped is not None:
                    break
            self._await_writes(0)
        finally:
            decoders.shutdown(cancel_futures=True)
            writers.shutdown()
        return stopped

    def _batches(
        self, tasks: Sequence[Task], decoders: ThreadPoolExecutor, num_workers: int
    ) -> Iterator[list[tuple[Task, _Pixels]]]:
        waiting = iter(tasks)
        decoding: deque[tuple[Task, Future[_Pixels]]] = deque()
        batch: list[tuple[Task, _Pixels]] = []
        while True:
            # One batch that the model works on, one that waits, and a task for every thread.
            while len(decoding) < 2 * self.batch_size + num_workers:
                task = next(waiting, None)
                if task is None:
                    break
                decoding.append((task, decoders.submit(self._prepare, task.path)))
            if not decoding:
                break
            task, future = decoding.popleft()
            try:
                batch.append((task, future.result()))
            except UnreadableImage as error:
                self._reject(task, error.problems[0].what)
            except OSError as error:
                self._reject(task, error.strerror or str(error))
            if len(batch) >= self.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _prepare(self, path: Path) -> _Pixels:
        return self.labeler.prepare(decode_rgb(path))

    def _reject(self, task: Task, reason: str) -> None:
        self.rejected.append((task.path, reason))
        self.emit(ItemRejected(path=str(task.path), reason=reason))

    def _label(self, batch: list[tuple[Task, _Pixels]], writers: ThreadPoolExecutor) -> None:
        start = 0
        while start < len(batch):
            part = batch[start : start + self.batch_size]
            prepared = [Prepared(key=task.key, pixels=pixels) for task, pixels in part]
            try:
                said = self.labeler.label(prepared)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(part), error)
                continue
            assert len(said) == len(part)
            for (task, _), words in zip(part, said, strict=True):
                self._await_writes(MAX_UNWRITTEN)
                self._writes.append(writers.submit(self.write, task, words))
            start += len(part)
            self.num_done += len(part)
            done = self.num_done + len(self.rejected)
            self.emit(StageProgress(stage=self.stage, done=done))

    def _halve(self, tried: int, error: Exception) -> None:
        if tried == 1 or self.labeler.fixed_batch is not None:
            raise EnvironmentFault(
                what=f"not enough memory for {tried} image{'s' if tried > 1 else ''} at once",
                fix="close other programs, choose a smaller model, or --device cpu",
            ) from error
        self.batch_size = max(1, tried // 2)
        reason = f"{tried} images at once did not fit in memory"
        self.emit(SettingChosen(name="batch_size", value=self.batch_size, reason=reason))

    def _await_writes(self, most: int) -> None:
        """Let at most so many writes be under way; raise what a finished one raised."""
        while self._writes and (len(self._writes) > most or self._writes[0].done()):
            self._writes.popleft().result()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether there was no room. By its words, so that torch need not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return any(sign in words for sign in signs)
