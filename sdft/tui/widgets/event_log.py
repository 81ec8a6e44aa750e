"""What the run said, line by line."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from textual.widgets import Log

from sdft.views.history import LogLine

ROWS_AT_ONCE = 100
"""Written in some milliseconds."""

LAST_TIME_S = 32_503_680_000.0
"""The year 3000, the last one that every system's clock can write."""


class EventLog(Log):
    """Give it all lines again and again; only new ones are written."""

    def __init__(self, *, empty: str, max_lines: int, id: str | None = None) -> None:
        super().__init__(highlight=False, max_lines=max_lines, id=id)
        self._empty = empty
        self._shown: Sequence[LogLine] | None = None
        self._waiting: deque[str] = deque()

    def show(self, lines: Sequence[LogLine]) -> None:
        """Write what came since the last call; everything anew where it is another record."""
        if self._shown is not None and lines == self._shown:
            return
        known = _overlap(self._shown or (), lines)
        if known == 0:
            self.clear()
            self._waiting.clear()
        self._shown = lines
        self._waiting += [row for line in lines[known:] for row in _rows(line)]
        if not lines:
            self._waiting.append(self._empty)
        self._write_some()

    def _write_some(self) -> None:
        """Write a part of what waits; the rest after other messages had their turn."""
        part = [self._waiting.popleft() for _ in range(min(len(self._waiting), ROWS_AT_ONCE))]
        if part:
            self.write_lines(part)
            self.call_later(self._write_some)


def _overlap(old: Sequence[LogLine], new: Sequence[LogLine]) -> int:
    """Return how many of the new lines were shown: those up to the old ones' last."""
    if not old:
        return 0
    last = old[-1]
    for position in range(len(new) - 1, -1, -1):
        if new[position] is last:
            return position + 1
    return 0


def _rows(line: LogLine) -> list[str]:
    time_s = min(max(line.time_s, 0.0), LAST_TIME_S)
    stamp = time.strftime("%H:%M:%S", time.localtime(time_s))
    first, *rest = line.text.expandtabs(4).split("\n")
    return [f"{stamp}  {first}", *(f"          {row}" for row in rest)]
