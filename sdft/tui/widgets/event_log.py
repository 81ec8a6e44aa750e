"""What the run said, line by line."""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.widgets import Log

from sdft.views.history import LogLine

LAST_TIME_S = 32_503_680_000.0
"""The year 3000, the last one that every system's clock can write."""


class EventLog(Log):
    """Give it all lines again and again; only new ones are written."""

    def __init__(self, *, empty: str, max_lines: int, id: str | None = None) -> None:
        super().__init__(highlight=False, max_lines=max_lines, id=id)
        self._empty = empty
        self._shown: Sequence[LogLine] | None = None

    def show(self, lines: Sequence[LogLine]) -> None:
        """Write what came since the last call; everything anew where it is another record."""
        if self._shown is not None and lines == self._shown:
            return
        known = _overlap(self._shown or (), lines)
        if known == 0:
            self.clear()
        self._shown = lines
        new = [row for line in lines[known:] for row in _rows(line)]
        if lines:
            self.write_lines(new)
        else:
            self.write_line(self._empty)


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
