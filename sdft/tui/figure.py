"""Curves as text, drawn by plotext.

In: what to draw and how large. Out: rich text. Takes some 30 ms for a large chart, so it is called
from a thread, never from a handler.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from rich.text import Text

from sdft.tui.ascii_filter import plain
from sdft.views.series import Point, smoothed

if TYPE_CHECKING:
    from textual_plotext import Plot

ROWS_PER_VALUE_TICK = 3
FRAME_ROWS = 4
"""Title, upper and lower border, names of the steps."""

COLUMNS_PER_STEP_TICK = 16

LARGEST = 1e100
"""A value beyond it is no measure of anything, and differences of such are not finite."""

RGB = tuple[int, int, int]

_ONE_AT_A_TIME = threading.Lock()
"""plotext keeps parts of a figure in module variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartLine:
    """One line of a chart."""

    name: str
    points: Sequence[Point]
    color: RGB
    is_pale: bool = False
    """Drawn from the lowest to the highest value of each column, under the others."""
    is_dotted: bool = False
    """Drawn as single marks: values that are far apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPlan:
    """Everything that decides what a chart looks like, but for its size."""

    title: str
    lines: tuple[ChartLine, ...]
    log_scale: bool = False
    scale: float = 1.0
    """Values are multiplied by this; such as 1e-9 to show bytes as GB."""
    ascii_only: bool = False


def smooth_line(points: Sequence[Point], memory: float) -> list[Point]:
    """Return the curve's fading mean as points."""
    means = smoothed(points, memory)
    return [
        Point(point.step, mean, mean, mean, point.count)
        for point, mean in zip(points, means, strict=True)
    ]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Join neighbours until at most `most` are left, keeping lowest and highest values."""
    per_group = -(-len(points) // max(most, 1)) or 1
    if per_group == 1:
        return list(points)
    groups = (points[start : start + per_group] for start in range(0, len(points), per_group))
    return [_joined(group) for group in groups]


def _joined(group: Sequence[Point]) -> Point:
    count = sum(point.count for point in group)
    return Point(
        group[0].step,
        sum(point.mean * point.count for point in group) / count,
        min(point.low for point in group),
        max(point.high for point in group),
        count,
    )


def matches(name: str, pattern: str) -> bool:
    """Tell whether a curve's name has the pattern in it; `*` and `?` stand for letters."""
    asked = pattern.strip().lower()
    return not asked or fnmatch(name.lower(), f"*{asked}*")


def draw(plan: ChartPlan, width: int, height: int) -> Text:
    """Return the chart, `height` lines of `width` columns; empty where there is no room."""
    if width < 16 or height < 4:
        return Text()
    # Takes 170 ms to import; the first screen is up before.
    from textual_plotext import Plot

    with _ONE_AT_A_TIME:
        return _drawn(Plot(), plan, width, height)


def _drawn(plot: Plot, plan: ChartPlan, width: int, height: int) -> Text:
    plot.plotsize(width, height)
    plot._set_size(width, height)
    plot.canvas_color("default")
    plot.axes_color("default")
    plot.ticks_color("default")
    values = _scaled_lines(plan, width)
    for line, steps, numbers in values:
        marker = ("." if line.is_pale else "*") if plan.ascii_only else "braille"
        if line.is_dotted:
            plot.scatter(steps, numbers, marker="o" if plan.ascii_only else "dot", color=line.color)
        else:
            plot.plot(steps, numbers, marker=marker, color=line.color)
    _set_ticks(plot, values, plan, width, height)
    plot.title(plan.title)
    text = Text.from_ansi(plot.build(), no_wrap=True)
    return _in_ascii(text) if plan.ascii_only else text


_Drawn = tuple[ChartLine, list[int], list[float]]


def _scaled_lines(plan: ChartPlan, width: int) -> list[_Drawn]:
    drawn: list[_Drawn] = []
    for line in sorted(plan.lines, key=lambda line: not line.is_pale):
        steps: list[int] = []
        numbers: list[float] = []
        for point in thinned(line.points, width):
            ends = (point.low, point.high) if line.is_pale else (point.mean,)
            for value in dict.fromkeys(ends):
                number = value * plan.scale
                if abs(number) > LARGEST:
                    continue
                if plan.log_scale:
                    if number <= 0:
                        continue
                    number = math.log10(number)
                steps.append(point.step)
                numbers.append(number)
        if steps:
            drawn.append((line, steps, numbers))
    return drawn


def _set_ticks(
    plot: Plot, drawn: Sequence[_Drawn], plan: ChartPlan, width: int, height: int
) -> None:
    if not drawn:
        return
    numbers = [number for _, _, line_numbers in drawn for number in line_numbers]
    low, high = min(numbers), max(numbers)
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    plot.ylim(low, high)
    gaps = num_value_gaps(height - FRAME_ROWS)
    heights = [low + (high - low) * n / gaps for n in range(gaps + 1)]
    plot.yticks(heights, value_labels([10**h if plan.log_scale else h for h in heights]))
    first = min(steps[0] for _, steps, _ in drawn)
    last = max(max(first + 1, steps[-1]) for _, steps, _ in drawn)
    plot.xlim(first, last)
    places: list[float] = [*step_ticks(first, last, max(2, width // COLUMNS_PER_STEP_TICK))]
    plot.xticks(places, [short_count(round(step)) for step in places])


def num_value_gaps(num_rows: int) -> int:
    """Return between how many evenly spaced rows the values are named, 1 to 5 gaps."""
    fitting = [
        gaps
        for gaps in range(1, 6)
        if (num_rows - 1) % gaps == 0 and (num_rows - 1) // gaps >= ROWS_PER_VALUE_TICK
    ]
    # Where nothing comes out even, uneven by one row looks better than two names for 20 rows.
    return max(fitting, default=1) if max(fitting, default=1) > 1 else max(1, min(4, num_rows // 4))


def value_labels(values: Sequence[float]) -> list[str]:
    """Write values with as few digits as tell them apart, all alike wide."""
    for digits in range(2, 7):
        labels = [f"{value:.{digits}g}" for value in values]
        if len(set(labels)) == len(labels):
            break
    width = max(len(label) for label in labels)
    return [label.rjust(width) for label in labels]


def step_ticks(first: int, last: int, number: int) -> list[int]:
    """Return round steps in first..last, about `number` of them, and `first` where none is."""
    rough = max((last - first) / number, 1)
    power = 10 ** math.floor(math.log10(rough))
    gap = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    start = -(-first // gap) * gap
    return list(range(start, last + 1, gap)) or [first]


def short_count(number: int) -> str:
    """Write 1500000 as 1.5M and 20000 as 20k."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= 10 * size or (number >= size and number % size == 0):
            return f"{number / size:.4g}{unit}"
    return str(number)


def _in_ascii(text: Text) -> Text:
    # Every glyph is replaced by one character, so the styles' places stay right.
    return Text(plain(text.plain), spans=text.spans, no_wrap=True)
