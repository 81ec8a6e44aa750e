"""Labels images by several processes of this machine.

In: tasks, what opens a labeler, how many processes. Out: the same words, given to `write` in this
process, and the same record as by one. Each process has a share of its own and sends what it finds;
only this one writes, so a process that dies costs no more than what it had not sent.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from sdft.dataset.picture_workers import become_worker
from sdft.errors import EnvironmentFault, Problem, SdftError
from sdft.events import Emit, Event, StageFinished, StageProgress, StageStarted
from sdft.jobs.environment import ask_nvidia_smi
from sdft.jobs.processes import Ended, how_it_ended
from sdft.labelers.records import Labeler, Words
from sdft.labelers.runner import (
    MAX_UNWRITTEN,
    NUM_WRITERS,
    Labelled,
    Task,
    default_workers,
    label_images,
)

Open = Callable[[], tuple[Labeler, str]]
"""Gives a labeler and a note about where it runs; goes to another process, so it can be pickled."""

POLL_S = 0.1
"""How soon a wish to stop is passed on."""

_OPENED, _WORDS, _EVENT, _DONE, _FAILED = "opened", "words", "event", "done", "failed"
"""What a message from a process is about."""

_STOPPED = "asked"


@dataclass(kw_only=True)
class _Part:
    """One process as this one sees it."""

    process: Any
    connection: Connection
    num_seen: int = 0
    ran: Labelled | None = None
    """What it did, once it has come to its end."""
    error: SdftError | None = None


def label_together(
    tasks: Sequence[Task],
    open_labeler: Open,
    *,
    num_processes: int,
    on_cpu: bool,
    write: Callable[[Task, Words], None],
    stage: str,
    opened: Callable[[str, str], None],
    batch_size: int | None,
    num_workers: int | None,
    stop: Callable[[], str | None],
    emit: Emit,
) -> Labelled:
    """Label as `label_images` does, by so many processes, each on a GPU of its own if there is one.

    `opened` hears a labeler's title and note once.

    Raises: what a labeler raises; EnvironmentFault where a process was killed. What was found until
        then is written.
    """
    context = multiprocessing.get_context("spawn")
    told_to_stop = context.Event()
    workers = max(1, (num_workers or default_workers()) // num_processes)
    parts = []
    run = _Together(stage, tasks, write, opened, emit)
    try:
        for rank in range(num_processes):
            here, there = context.Pipe(duplex=False)
            share = tasks[rank::num_processes]
            process = context.Process(
                target=_label_part,
                args=(share, open_labeler, stage, batch_size, workers, there, told_to_stop),
            )
            with _environment(_variables(rank, num_processes, on_cpu=on_cpu)):
                process.start()
            # So that its end is seen when the process is gone.
            there.close()
            parts.append(_Part(process=process, connection=here))
        reason = run.listen(parts, told_to_stop, stop)
    finally:
        _end(parts)
        run.close()
    _require_whole(parts)
    return run.labelled(parts, reason)


class _Together:
    """Takes in what the processes send."""

    def __init__(
        self,
        stage: str,
        tasks: Sequence[Task],
        write: Callable[[Task, Words], None],
        opened: Callable[[str, str], None],
        emit: Emit,
    ) -> None:
        self._stage = stage
        self._tasks = tasks
        self._write = write
        self._opened = opened
        self._emit = emit
        self._writers = ThreadPoolExecutor(NUM_WRITERS, thread_name_prefix="write")
        self._writes: deque[Future[None]] = deque()
        self._said: list[Event] = []
        self._started_s: float | None = None
        self._num_words = 0
        self._num_seen = 0

    def listen(
        self, parts: Sequence[_Part], told_to_stop: Any, stop: Callable[[], str | None]
    ) -> str | None:
        """Take in all messages until every process has ended; return why a stop was asked for."""
        reason = None
        by_connection = {part.connection: part for part in parts}
        while by_connection:
            for connection in wait(list(by_connection), POLL_S):
                part = by_connection[connection]  # type: ignore[index]
                try:
                    kind, content = part.connection.recv()
                except (EOFError, OSError):
                    # It has ended, perhaps in the middle of a message.
                    del by_connection[part.connection]
                else:
                    self._take(part, kind, content)
                if part.ran is None and (part.connection not in by_connection or part.error):
                    told_to_stop.set()
            reason = reason or stop()
            if reason is not None:
                told_to_stop.set()
        self._await_writes(0)
        return reason

    def close(self) -> None:
        self._writers.shutdown()

    def labelled(self, parts: Sequence[_Part], reason: str | None) -> Labelled:
        """Return what all did, with the images in their order."""
        done = [part.ran for part in parts if part.ran is not None]
        rejected = {path: why for ran in done for path, why in ran.rejected}
        duration_s = 0.0 if self._started_s is None else time.monotonic() - self._started_s
        num_seen = self._num_words + len(rejected)
        self._emit(StageFinished(stage=self._stage, done=num_seen, duration_s=duration_s))
        return Labelled(
            num_done=self._num_words,
            rejected=tuple((t.path, rejected[t.path]) for t in self._tasks if t.path in rejected),
            stopped=reason,
            batch_size=min(ran.batch_size for ran in done),
            duration_s=duration_s,
        )

    def _take(self, part: _Part, kind: str, content: Any) -> None:
        if kind == _WORDS:
            task, words = content
            self._num_words += 1
            self._await_writes(MAX_UNWRITTEN)
            self._writes.append(self._writers.submit(self._write, task, words))
        elif kind == _EVENT:
            self._hear(part, content)
        elif kind == _DONE:
            part.ran = content
        elif kind == _FAILED:
            error_class, problems = content
            part.error = error_class(problems=problems)
        elif kind == _OPENED and self._started_s is None:
            self._started_s = time.monotonic()
            self._opened(*content)
            self._emit(StageStarted(stage=self._stage, total=len(self._tasks), unit="images"))

    def _hear(self, part: _Part, event: Event) -> None:
        """Say what a process says of its share as it is of the whole, and each thing once."""
        if isinstance(event, StageProgress):
            others = self._num_seen - part.num_seen
            part.num_seen = event.done
            self._num_seen = others + event.done
            self._emit(StageProgress(stage=self._stage, done=self._num_seen))
        elif not isinstance(event, StageStarted | StageFinished) and event not in self._said:
            self._said.append(event)
            self._emit(event)

    def _await_writes(self, most: int) -> None:
        """Let at most so many writes be under way; raise what a finished one raised."""
        while self._writes and (len(self._writes) > most or self._writes[0].done()):
            self._writes.popleft().result()


def _label_part(
    share: Sequence[Task],
    open_labeler: Open,
    stage: str,
    batch_size: int | None,
    num_workers: int,
    connection: Connection,
    told_to_stop: Any,
) -> None:
    """Label a share; everything that comes of it is sent."""
    become_worker()
    lock = threading.Lock()

    def send(kind: str, content: Any) -> None:
        with lock:
            connection.send((kind, content))

    try:
        labeler, note = open_labeler()
        send(_OPENED, (labeler.title, note))
        ran = label_images(
            share,
            labeler,
            write=lambda task, words: send(_WORDS, (task, words)),
            stage=stage,
            batch_size=batch_size,
            num_workers=num_workers,
            stop=lambda: _STOPPED if told_to_stop.is_set() else None,
            emit=lambda event: send(_EVENT, event),
        )
        send(_DONE, ran)
    except SdftError as error:
        send(_FAILED, (type(error), error.problems))


def _require_whole(parts: Sequence[_Part]) -> None:
    """Raises: the error of a process; EnvironmentFault for one that ended without any."""
    errors = [part.error for part in parts if part.error is not None]
    if errors:
        # What all of them miss is one problem.
        problems: tuple[Problem, ...] = tuple(
            dict.fromkeys(one for error in errors for one in error.problems)
        )
        raise type(errors[0])(problems=problems)
    for rank, part in enumerate(parts):
        if part.ran is None:
            raise EnvironmentFault(
                what=how_it_ended(Ended(rank=rank, code=part.process.exitcode or 0), len(parts)),
                fix="what is done is written; the same command goes on from here",
            )


def _end(parts: Sequence[_Part]) -> None:
    """Wait for processes that have sent everything; end those that are left by an error here."""
    for part in parts:
        if part.ran is None and part.error is None:
            part.process.terminate()
        part.process.join()
        part.connection.close()


def _variables(rank: int, num_processes: int, *, on_cpu: bool) -> dict[str, str]:
    """Return what a process is told before it loads anything: its cores, its card."""
    threads = max(1, default_workers() // num_processes)
    variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    cards = [] if on_cpu else _cards()
    if cards:
        variables["CUDA_VISIBLE_DEVICES"] = cards[rank % len(cards)]
    return variables


def _cards() -> list[str]:
    """Return the names of the GPUs that may be used, as CUDA reads them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [row[0] for row in ask_nvidia_smi("index")]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Let a process that is started in the block find these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
