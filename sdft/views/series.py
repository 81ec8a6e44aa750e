"""A curve of any length in bounded memory.

Neighbouring values share a bucket that knows their mean, lowest and highest; when there are too
many buckets, each two become one. So a curve of two million steps costs what one of two thousand
does, and no spike is lost.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BUCKETS = 4096
"""A wide terminal has about 400 dots across; ten times that leaves room to zoom."""


@dataclass(frozen=True, slots=True)
class Point:
    """Some neighbouring values of a curve."""

    step: int
    """Of the first of them."""
    mean: float
    low: float
    high: float
    count: int


class Curve:
    """Values by step. Steps grow; a step that comes again replaces what was after it."""

    __slots__ = ("_counts", "_highs", "_lows", "_max_buckets", "_per_bucket", "_steps", "_sums")

    def __init__(self, max_buckets: int = MAX_BUCKETS) -> None:
        self._max_buckets = max_buckets
        self._per_bucket = 1
        self._steps = array("q")
        self._counts = array("q")
        self._sums = array("d")
        self._lows = array("d")
        self._highs = array("d")

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def num_values(self) -> int:
        return sum(self._counts)

    @property
    def span(self) -> tuple[int, int] | None:
        """First and last step, where every step has a value; none while the curve is empty."""
        if not self._steps:
            return None
        return self._steps[0], self._steps[-1] + self._counts[-1] - 1

    def copy(self) -> Curve:
        """Return a curve that does not change when this one does."""
        other = Curve(self._max_buckets)
        other._per_bucket = self._per_bucket
        for name in ("_steps", "_counts", "_sums", "_lows", "_highs"):
            setattr(other, name, getattr(self, name)[:])
        return other

    def add(self, step: int, value: float) -> None:
        """Append one value; one that is not a finite number has no place on a curve."""
        self.extend((step,), (value,))

    def extend(self, steps: Sequence[int], values: Sequence[float]) -> None:
        """Append values whose steps grow."""
        if not steps:
            return
        if self._steps and steps[0] <= self._steps[-1]:
            self.cut(steps[0])
        if not all(map(math.isfinite, values)):
            pairs = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
            steps, values = [s for s, _ in pairs], [v for _, v in pairs]
        start = self._fill_last(values)
        while start < len(values):
            part = values[start : start + self._per_bucket]
            self._steps.append(steps[start])
            self._counts.append(len(part))
            self._sums.append(math.fsum(part))
            self._lows.append(min(part))
            self._highs.append(max(part))
            start += len(part)
            if len(self._steps) > self._max_buckets:
                self._halve()
                start += self._fill_last(values[start:])

    def cut(self, step: int) -> None:
        """Drop the buckets that begin at `step` or later."""
        end = len(self._steps)
        while end and self._steps[end - 1] >= step:
            end -= 1
        for column in (self._steps, self._counts, self._sums, self._lows, self._highs):
            del column[end:]

    def points(self, first: int | None = None, last: int | None = None) -> list[Point]:
        """Return the buckets that begin in first..last, all without bounds."""
        return [
            Point(step, total / count, low, high, count)
            for step, count, total, low, high in zip(
                self._steps, self._counts, self._sums, self._lows, self._highs, strict=True
            )
            if (first is None or step >= first) and (last is None or step <= last)
        ]

    def _fill_last(self, values: Sequence[float]) -> int:
        """Put as many values as it lacks into the last bucket; return how many."""
        if not self._steps or not values:
            return 0
        part = values[: self._per_bucket - self._counts[-1]]
        if part:
            self._counts[-1] += len(part)
            self._sums[-1] += math.fsum(part)
            self._lows[-1] = min(self._lows[-1], *part)
            self._highs[-1] = max(self._highs[-1], *part)
        return len(part)

    def _halve(self) -> None:
        even = len(self._steps) // 2 * 2
        self._counts = _paired(self._counts, even, lambda a, b: a + b)
        self._sums = _paired(self._sums, even, lambda a, b: a + b)
        self._lows = _paired(self._lows, even, min)
        self._highs = _paired(self._highs, even, max)
        self._steps = self._steps[::2]
        self._per_bucket *= 2


def _paired(column: array, even: int, join) -> array:  # type: ignore[no-untyped-def,type-arg]
    joined = map(join, column[0:even:2], column[1:even:2])
    return array(column.typecode, [*joined, *column[even:]])


def smoothed(points: Sequence[Point], memory: float) -> list[float]:
    """Return a fading mean at each point; a value of n steps fades the older ones n times.

    `memory` is how much of the mean one step keeps, 0 for none.
    """
    means = []
    weighted_sum = weight = 0.0
    for point in points:
        keep = memory**point.count
        weighted_sum = weighted_sum * keep + point.mean * (1 - keep)
        weight = weight * keep + (1 - keep)
        means.append(weighted_sum / weight)
    return means
