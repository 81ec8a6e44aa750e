"""Starts the processes of a run on this machine and watches over them.

In: a command line, how many. Out: the exit code of the whole. No torch: what starts is the same
command again, told its place by the variables that torchrun sets too. One that dies ends the
others, after time to finish what they write; a crash may be followed by a new start.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from sdft.errors import EnvironmentFault, Interrupted, PeerLost, StoppedResumable
from sdft.events import Emit, Notice
from sdft.processes import STARTED_BY_SDFT

POLL_S = 0.05

GRACE_S = 45.0
"""For the others when one has died: a state that is being written becomes whole."""

CAUSE_WITHIN_S = 2.0
"""Who lost another process may be seen to end before it."""

LOOPBACK = "127.0.0.1"

_STOPPED = (StoppedResumable.exit_code, Interrupted.exit_code)
"""Exit codes of processes that were asked to stop; all of them end by themselves."""

_LOST = PeerLost.exit_code
_CRASHED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the processes of one start ended."""

    rank: int = 0
    """Of the process that ended first by itself."""
    code: int = 0
    """Its exit code; negative for a signal."""

    @property
    def is_crash(self) -> bool:
        """Whether the same command may succeed when it is started again."""
        return self.code < 0 or self.code in (_CRASHED, _LOST)


def run_processes(
    first: Sequence[str],
    again: Sequence[str],
    *,
    num_processes: int,
    max_restarts: int,
    port: int | None,
    resume_hint: str,
    emit: Emit,
    program: Sequence[str] = (sys.executable, "-m", "sdft"),
) -> int:
    """Run `program` with the words `first` in so many processes; return the exit code.

    After a crash the words `again` follow, at most `max_restarts` times.

    Raises: EnvironmentFault where a process was killed, or the port is in use.
    """
    words = first
    for attempt in range(max_restarts + 1):
        meeting_port = free_port() if port is None else port
        if port is not None:
            require_free(port)
        ended = _run_once(
            [*program, *words], num_processes=num_processes, port=meeting_port, emit=emit
        )
        if not ended.is_crash or attempt == max_restarts:
            break
        message = f"going on from the last state ({attempt + 1} of {max_restarts} new starts)"
        emit(Notice(severity="warning", topic="processes", message=message))
        words = again
    if ended.code < 0 or ended.code == _LOST:
        raise EnvironmentFault(
            what=how_it_ended(ended, num_processes),
            fix=resume_hint,
        )
    return ended.code


def how_it_ended(ended: Ended, num_processes: int) -> str:
    """Say what became of a process that did not end by itself."""
    who = f"process {ended.rank} of {num_processes}"
    if ended.code >= 0:
        return f"{who} ended with exit code {ended.code}"
    name = signal.Signals(-ended.code).name
    hint = ", as the system does where memory runs out" if name == "SIGKILL" else ""
    return f"{who} was killed by {name}{hint}"


def require_free(port: int) -> None:
    """Check that nothing on this machine listens at a port.

    Raises: EnvironmentFault.
    """
    with socket.socket() as trial:
        # As the listening side does it: an old connection that is closing is no hindrance.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
        except OSError as error:
            raise EnvironmentFault(
                what=f"port {port} is in use, so process 0 cannot be met there ({error.strerror})",
                where="main_process_port",
                fix="choose another, or leave it out: then a free one is taken",
            ) from error


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind((LOOPBACK, 0))
        port: int = trial.getsockname()[1]
        return port


def environment_of(
    rank: int, num_processes: int, port: int, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return what a process is told: its place, where all meet, its share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    return {
        "OMP_NUM_THREADS": str(threads),
        **environment,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        STARTED_BY_SDFT: "1",
    }


def _run_once(command: Sequence[str], *, num_processes: int, port: int, emit: Emit) -> Ended:
    """Start all processes and return how the first of them ended, when all are gone."""
    root = str(Path(__file__).parents[2])
    started: list[subprocess.Popen[bytes]] = []
    try:
        with _signals_passed_on(started):
            for rank in range(num_processes):
                told = environment_of(rank, num_processes, port)
                # The same package again, installed or not.
                told["PYTHONPATH"] = os.pathsep.join(filter(None, (root, told.get("PYTHONPATH"))))
                started.append(subprocess.Popen(command, env=told))
            ended = _watched(started)
            if ended.code < 0:
                # Before the others are asked to end, which then say what became of the run.
                message = how_it_ended(ended, num_processes)
                emit(Notice(severity="error", topic="processes", message=message))
            return ended
    finally:
        _end(started)


def _watched(started: Sequence[subprocess.Popen[bytes]]) -> Ended:
    """Return how the first process ended that lost no other, when one did or all are gone."""
    looks_until_s = math.inf
    while True:
        codes = [process.poll() for process in started]
        bad = [(rank, code) for rank, code in enumerate(codes) if code not in (None, 0, *_STOPPED)]
        causes = [(rank, code) for rank, code in bad if code != _LOST]
        if bad and looks_until_s == math.inf:
            looks_until_s = time.monotonic() + CAUSE_WITHIN_S
        if causes or (bad and time.monotonic() > looks_until_s):
            rank, code = (causes or bad)[0]
            return Ended(rank=rank, code=code or 0)
        if all(code is not None for code in codes):
            rank = next((rank for rank, code in enumerate(codes) if code), 0)
            return Ended(rank=rank, code=codes[rank] or 0)
        time.sleep(POLL_S)


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask what is left to end, and end it when its time is up."""
    for process in started:
        if process.poll() is None:
            process.terminate()
    deadline_s = time.monotonic() + GRACE_S
    for process in started:
        try:
            process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _signals_passed_on(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """While the block runs, a signal to end goes to the processes, which save and stop.

    A terminal sends Ctrl-C to all of its processes by itself.
    """

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in started:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def leave(number: int, frame: FrameType | None) -> None:
        return

    wanted: dict[signal.Signals, Any] = {signal.SIGINT: leave}
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            wanted[getattr(signal, name)] = pass_on
    before: dict[signal.Signals, Any] = {}
    for number, handler in wanted.items():
        # Only the main thread may listen.
        with suppress(ValueError):
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
