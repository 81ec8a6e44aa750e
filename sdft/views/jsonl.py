"""`events.jsonl`: one event a line, on the disk before the next one happens."""

from __future__ import annotations

import os
from pathlib import Path

from sdft.errors import EnvironmentFault
from sdft.events import Event, EventLine, Notice, StageProgress


class JsonlWriter:
    """Appends events to a file, each as one line of JSON.

    A run that goes on cuts the file to `start_at_bytes`, the position that its state recorded: what
    was written after that state is done again. Without a position the file is continued at its
    end. A last line that a crash left unfinished is cut off either way.

    Raises: EnvironmentFault where the file cannot be written.
    """

    def __init__(self, path: Path, start_at_bytes: int | None = None) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Opened with "a" the position would be the end whatever is cut off.
            self._file = path.open("r+b" if path.exists() else "w+b")
            num_bytes = self._file.seek(0, os.SEEK_END)
            asked = num_bytes if start_at_bytes is None else start_at_bytes
            self._file.truncate(_line_end(path, min(asked, num_bytes)))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise _fault(path, error) from error
        self._num_missing = max(asked - num_bytes, 0)

    def __call__(self, time_s: float, event: Event) -> None:
        if isinstance(event, StageProgress):
            return
        if self._num_missing:
            message = f"{self._num_missing} bytes that the state counts are gone from this file"
            self._num_missing = 0
            self(time_s, Notice(severity="warning", topic="events", message=message))
        try:
            self._file.write(EventLine.write(event, time_s).encode("ascii") + b"\n")
            self._file.flush()
        except OSError as error:
            raise _fault(self._path, error) from error

    def position(self) -> int:
        """Return the length of the file in bytes, all of it on the disk."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _fault(self._path, error) from error
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def _line_end(path: Path, num_bytes: int) -> int:
    """Return the end of the last whole line within the first `num_bytes`."""
    with path.open("rb") as file:
        end = num_bytes
        while end > 0:
            start = max(end - 65536, 0)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def _fault(path: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        what=f"cannot be written: {error.strerror or error}",
        where=str(path),
        fix="free some space, or choose a folder that you may write to",
    )
