"""How a person looks at the curves, and the charts that follow from it. No screen in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sdft.language import Words
from sdft.tui.figure import RGB, ChartLine, ChartPlan, matches, smooth_line
from sdft.tui.following import Seen
from sdft.views.series import Curve, Point

SMOOTHINGS = (0.0, 0.9, 0.98, 0.995)
"""How much of the mean a step keeps: none, about 10, 50 and 200 steps count."""

CHARTS = ("loss", "validation", "lr", "grad_norm", "images_per_s", "memory_bytes", "step_s")
"""In the order of the screen. `epoch_loss` is drawn with `loss`."""

MIN_WINDOW_STEPS = 10
WHOLE_FROM = 0.95
"""A window of more than this share is the whole run: halving and doubling rounds a little off."""

PALE_SHARE = 0.38
"""How much of a curve's colour is left in its pale part; the rest is the background."""

BYTES_AS_GB = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """What the keys of the curves change."""

    smoothing: float = 0.98
    log_scale: bool = False
    window: tuple[int, int] | None = None
    """First and last step shown; none for the whole run."""
    pattern: str = ""

    def next_smoothing(self) -> Viewing:
        position = SMOOTHINGS.index(self.smoothing)
        return replace(self, smoothing=SMOOTHINGS[(position + 1) % len(SMOOTHINGS)])

    def zoomed(self, factor: float, first: int, last: int) -> Viewing:
        """Show `factor` times as many steps of a run that has steps first..last.

        The newest step stays in sight if it was; else the middle stays where it is.
        """
        left, right = self.window or (first, last)
        span = max(round((right - left) * factor), MIN_WINDOW_STEPS)
        if span >= (last - first) * WHOLE_FROM:
            return replace(self, window=None)
        end = last if right >= last else (left + right + span) // 2
        return replace(self, window=_inside(end - span, end, first, last))

    def moved(self, share: float, first: int, last: int) -> Viewing:
        """Move the window by a share of its own width; without a window nothing moves."""
        if self.window is None:
            return self
        left, right = self.window
        by = round((right - left) * share)
        return replace(self, window=_inside(left + by, right + by, first, last))

    def settings_words(self, words: Words) -> str:
        """Return smoothing, scale and window in words."""
        window = words("curve.whole")
        if self.window is not None:
            window = words("curve.window", first=self.window[0], last=self.window[1])
        scale = words("curve.log") if self.log_scale else words("curve.linear")
        return words("curve.settings", smoothing=self.smoothing, scale=scale, window=window)


def _inside(left: int, right: int, first: int, last: int) -> tuple[int, int]:
    if right > last:
        left, right = left - (right - last), last
    if left < first:
        left, right = first, right + (first - left)
    return left, right


@dataclass(frozen=True, slots=True, kw_only=True)
class Colors:
    """What a theme gives to the charts."""

    runs: Sequence[RGB]
    background: RGB

    def of(self, position: int) -> RGB:
        return self.runs[position % len(self.runs)]

    def pale(self, position: int) -> RGB:
        mixed = [
            round(bright * PALE_SHARE + dark * (1 - PALE_SHARE))
            for bright, dark in zip(self.of(position), self.background, strict=True)
        ]
        return (mixed[0], mixed[1], mixed[2])


def step_range(runs: Sequence[Seen]) -> tuple[int, int]:
    """Return the first and last step that any run has."""
    ends: list[int] = []
    for seen in runs:
        span = seen.snapshot.curves["loss"].span
        if span is not None:
            ends += span
    return (min(ends), max(ends)) if ends else (0, 0)


def chart_names(viewing: Viewing, words: Words) -> list[str]:
    """Return the charts whose shown name or own name has the pattern in it."""
    return [
        name
        for name in CHARTS
        if matches(words(f"curve.{name}"), viewing.pattern) or matches(name, viewing.pattern)
    ]


def chart_plan(
    name: str,
    runs: Sequence[Seen],
    viewing: Viewing,
    *,
    words: Words,
    colors: Colors,
    ascii_only: bool,
    with_raw: bool = True,
) -> ChartPlan:
    """Return one chart of one or several runs, each in its colour.

    Without `with_raw` the pale clouds are left out: those of several runs would hide the curves.
    """
    lines: list[ChartLine] = []
    for position, seen in enumerate(runs):
        curves = _Cut(seen.snapshot.curves, viewing.window)
        color, pale = colors.of(position), colors.pale(position)
        if name == "loss":
            lines += _loss_lines(curves, viewing, color, pale, words)
            # A run alone has its dots in another colour than its curve, to be seen on it.
            dots = colors.of(position + 1) if len(runs) == 1 else color
            lines += _validation_lines(curves, dots, None, words)
        elif name == "validation":
            lines += _validation_lines(curves, color, pale, words)
        else:
            lines += _other_lines(name, curves, viewing, color, pale)
        if name == "memory_bytes" and (plan := seen.snapshot.summary.memory_plan) is not None:
            ends = curves.points(name)[:1] + curves.points(name)[-1:]
            level = float(plan.peak_bytes)
            flat = [Point(end.step, level, level, level, 1) for end in ends]
            lines.append(ChartLine(name=words("curve.planned"), points=flat, color=pale))
    return ChartPlan(
        title=words(f"curve.{name}"),
        lines=tuple(line for line in lines if line.points and (with_raw or not line.is_pale)),
        log_scale=viewing.log_scale,
        scale=BYTES_AS_GB if name == "memory_bytes" else 1.0,
        ascii_only=ascii_only,
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """Curves within a window."""

    curves: Mapping[str, Curve]
    window: tuple[int, int] | None

    def points(self, name: str) -> list[Point]:
        return self.curves[name].points(*(self.window or (None, None)))


def _loss_lines(
    curves: _Cut, viewing: Viewing, color: RGB, pale: RGB, words: Words
) -> list[ChartLine]:
    raw = curves.points("loss")
    smooth = smooth_line(raw, viewing.smoothing)
    return [
        ChartLine(name=words("curve.raw"), points=raw, color=pale, is_pale=True),
        ChartLine(name=words("curve.smooth"), points=smooth, color=color),
    ]


def _validation_lines(curves: _Cut, color: RGB, pale: RGB | None, words: Words) -> list[ChartLine]:
    """Held-out loss; with a pale colour also its band and the training images' curve."""
    held_out = curves.points("validation")
    name = words("curve.validation")
    dots = ChartLine(name=name, points=held_out, color=color, is_dotted=True)
    band = _band(held_out, curves.points("validation_low"), curves.points("validation_high"))
    if pale is None:
        return [dots]
    return [
        ChartLine(name=words("curve.band"), points=band, color=pale, is_pale=True),
        ChartLine(name=words("curve.train"), points=curves.points("validation_train"), color=pale),
        ChartLine(name=name, points=held_out, color=color),
        dots,
    ]


def _band(middle: Sequence[Point], low: Sequence[Point], high: Sequence[Point]) -> list[Point]:
    if not len(middle) == len(low) == len(high):
        return []
    return [
        Point(mid.step, mid.mean, below.low, above.high, mid.count)
        for mid, below, above in zip(middle, low, high, strict=True)
    ]


def _other_lines(
    name: str, curves: _Cut, viewing: Viewing, color: RGB, pale: RGB
) -> list[ChartLine]:
    raw = curves.points(name)
    if name in ("lr", "memory_bytes"):
        # Neither is noisy; smoothing would show a rate that no step had.
        return [ChartLine(name=name, points=raw, color=color)]
    return [
        ChartLine(name=name, points=raw, color=pale, is_pale=True),
        ChartLine(name=name, points=smooth_line(raw, viewing.smoothing), color=color),
    ]
