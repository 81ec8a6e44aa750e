"""What a run writes down about itself: `events.jsonl` and `log.txt` in its folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TextIO

from sdft.errors import EnvironmentFault
from sdft.events import Event, StageProgress
from sdft.rundir import RunDir
from sdft.views.console import PlainView
from sdft.views.jsonl import JsonlWriter

NUM_HELD = 10_000
"""Events kept until the folder is known; reading a huge data set may reject many images before."""


class RunRecorder:
    """A listener that keeps events until the run's folder is known, then writes all of them.

    The job opens it when it has the folder and holds its lock.
    """

    def __init__(self) -> None:
        self._held: list[tuple[float, Event]] = []
        self._events: JsonlWriter | None = None
        self._log: LogWriter | None = None

    def open(self, run: RunDir, events_at_bytes: int | None = None) -> None:
        """Begin to write into the folder of `run`.

        `events_at_bytes` is the position that the state recorded, where a run goes on from one.
        """
        assert self._events is None, "a recorder writes one run"
        self._events = JsonlWriter(run.events_file, events_at_bytes)
        self._log = LogWriter(run.log_file)
        held, self._held = self._held, []
        for time_s, event in held:
            self(time_s, event)

    def __call__(self, time_s: float, event: Event) -> None:
        if self._events is None or self._log is None:
            if not isinstance(event, StageProgress) and len(self._held) < NUM_HELD:
                self._held.append((time_s, event))
            return
        self._events(time_s, event)
        self._log(time_s, event)

    def position(self) -> int:
        """Return the length of `events.jsonl` in bytes, for the state to record."""
        assert self._events is not None, "the recorder is not open"
        return self._events.position()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
        if self._log is not None:
            self._log.close()


class LogWriter:
    """Appends the plain lines of the console, each with its date and time (UTC)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise self._fault(error) from error
        self._time_s = 0.0
        self._lines = PlainView(self._write)

    def __call__(self, time_s: float, event: Event) -> None:
        self._time_s = time_s
        self._lines(time_s, event)

    def close(self) -> None:
        self._lines.close()
        self._file.close()

    def _write(self, line: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._time_s))
        try:
            self._file.write(f"{stamp} {line}\n")
            self._file.flush()
        except OSError as error:
            raise self._fault(error) from error

    def _fault(self, error: OSError) -> EnvironmentFault:
        return EnvironmentFault(
            what=f"cannot be written: {error.strerror or error}", where=str(self._path)
        )
