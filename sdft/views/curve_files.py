"""Curves as files: a table for a spreadsheet, a picture for a report."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.files import whole_file, write_text
from sdft.views.series import Point

WIDTH_PX = 1200
HEIGHT_PX = 600
MARGIN_PX = 70
NUM_TICKS = 5

_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_GRID = (222, 222, 222)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve of a picture or table."""

    name: str
    points: Sequence[Point]
    color: tuple[int, int, int] = (0, 114, 178)
    is_thin: bool = False


def write_csv(path: Path, lines: Sequence[Line]) -> None:
    """Write a row for each point: curve, first step, mean, lowest, highest, number of steps."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["curve", "step", "mean", "low", "high", "steps"])
    for line in lines:
        for point in line.points:
            numbers = (point.mean, point.low, point.high)
            writer.writerow([line.name, point.step, *(f"{n:.9g}" for n in numbers), point.count])
    write_text(path, table.getvalue())


def write_png(path: Path, title: str, lines: Sequence[Line], *, log_scale: bool = False) -> None:
    """Draw curves with axes, names and ticks.

    With `log_scale` values of 0 and less have no place and are left out.
    """
    # Pillow takes 40 ms to import, and most watchers never draw a file.
    from PIL import Image, ImageDraw, ImageFont

    shown = [
        (line, [p for p in line.points if not log_scale or p.mean > 0])
        for line in lines
        if line.points
    ]
    frame = _Frame.around([points for _, points in shown], log_scale=log_scale)
    image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), _PAPER)
    draw = ImageDraw.Draw(image)
    font, small = ImageFont.load_default(20), ImageFont.load_default(14)
    draw.text((MARGIN_PX, 12), title, fill=_INK, font=font)
    for value in frame.value_ticks():
        y = frame.y_of(value)
        draw.line([(MARGIN_PX, y), (WIDTH_PX - 20, y)], fill=_GRID)
        draw.text((MARGIN_PX - 8, y), f"{value:.3g}", fill=_INK, font=small, anchor="rm")
    for step in frame.step_ticks():
        x = frame.x_of(step)
        draw.text((x, HEIGHT_PX - MARGIN_PX + 10), f"{step:,}", fill=_INK, font=small, anchor="mt")
    left = MARGIN_PX
    for line, points in shown:
        places = [(frame.x_of(point.step), frame.y_of(point.mean)) for point in points]
        draw.line(places, fill=line.color, width=1 if line.is_thin else 3, joint="curve")
        draw.rectangle([left, HEIGHT_PX - 28, left + 18, HEIGHT_PX - 18], fill=line.color)
        draw.text((left + 26, HEIGHT_PX - 32), line.name, fill=_INK, font=small)
        left += 50 + int(draw.textlength(line.name, font=small))
    with whole_file(path) as part:
        image.save(part, format="PNG")


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where steps and values lie on the picture."""

    first: int
    last: int
    low: float
    high: float
    log_scale: bool

    @classmethod
    def around(cls, curves: Sequence[Sequence[Point]], *, log_scale: bool) -> _Frame:
        points = [point for curve in curves for point in curve] or [Point(0, 1.0, 1.0, 1.0, 1)]
        values = [point.mean for point in points]
        low, high = min(values), max(values)
        if low == high:
            low, high = (low * 0.9, high * 1.1) if low > 0 else (low - 1, high + 1)
        steps = [point.step for point in points]
        return cls(min(steps), max(*steps, min(steps) + 1), low, high, log_scale)

    def x_of(self, step: int) -> float:
        share = (step - self.first) / (self.last - self.first)
        return MARGIN_PX + share * (WIDTH_PX - MARGIN_PX - 20)

    def y_of(self, value: float) -> float:
        low, high, value = self._scaled(self.low), self._scaled(self.high), self._scaled(value)
        return HEIGHT_PX - MARGIN_PX - (value - low) / (high - low) * (HEIGHT_PX - 2 * MARGIN_PX)

    def value_ticks(self) -> list[float]:
        low, high = self._scaled(self.low), self._scaled(self.high)
        ticks = [low + (high - low) * n / (NUM_TICKS - 1) for n in range(NUM_TICKS)]
        return [math.exp(tick) if self.log_scale else tick for tick in ticks]

    def step_ticks(self) -> list[int]:
        span = self.last - self.first
        return sorted({self.first + span * n // (NUM_TICKS - 1) for n in range(NUM_TICKS)})

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log_scale else value


def export_curves(
    folder: Path, name: str, curves: Mapping[str, Sequence[Line]], *, log_scale: bool
) -> list[Path]:
    """Write `<name>.csv` and a picture for each of `curves`; return the paths."""
    table = folder / f"{name}.csv"
    write_csv(table, [line for lines in curves.values() for line in lines])
    written = [table]
    for title, lines in curves.items():
        picture = folder / f"{name}-{title}.png"
        write_png(picture, title, lines, log_scale=log_scale)
        written.append(picture)
    return written
