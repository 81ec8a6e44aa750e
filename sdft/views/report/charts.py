"""The curves of a report, as plain values for the page's script.

In: a Snapshot. Out: charts, each with series of [step, value, low, high].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sdft.views.history import Snapshot
from sdft.views.series import Curve, Point, smoothed
from sdft.views.summary import LOSS_MEMORY

NUM_POINTS = 1200
"""More than a wide screen has dots across; fewer keep the file small."""

_SIGNIFICANT = 6


def charts_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return the charts that have something to show."""
    curves = snapshot.curves
    loss = curves["loss"].points()
    validation = _joined(curves["validation"], curves["validation_low"], curves["validation_high"])
    charts = [
        _chart(
            "Loss",
            [
                _series("each step", "faint", _rows(_thinned(loss)), band=True),
                _series("mean of about 50 steps", "first", _smooth_rows(loss)),
                _series("mean of an epoch", "second", _rows(curves["epoch_loss"].points())),
            ],
        ),
        _chart(
            "Loss at fixed timesteps and noise",
            [
                _series("held-out images, 95 % band", "third", validation, band=True),
                _series("training images", "first", _rows(curves["validation_train"].points())),
            ],
        ),
        _chart("Learning rate", [_single(curves, "lr", "learning rate")]),
        _chart("Gradient norm before clipping", [_single(curves, "grad_norm", "gradient norm")]),
        _chart("Images a second", [_single(curves, "images_per_s", "images a second")]),
        _chart("Peak memory, GB", [_single(curves, "memory_bytes", "GB", scale=1e-9)]),
    ]
    return [chart for chart in charts if chart["series"]]


def _chart(title: str, series: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "series": [one for one in series if one["points"]]}


def _series(
    name: str, color: str, points: list[list[float]], *, band: bool = False
) -> dict[str, Any]:
    return {"name": name, "color": color, "points": points, "band": band}


def _single(
    curves: dict[str, Curve], name: str, words: str, *, scale: float = 1.0
) -> dict[str, Any]:
    points = _thinned(curves[name].points())
    rows = [[row[0], *(_short(value * scale) for value in row[1:])] for row in _rows(points)]
    return _series(words, "first", rows)


def _rows(points: Sequence[Point]) -> list[list[float]]:
    return [[p.step, _short(p.mean), _short(p.low), _short(p.high)] for p in points]


def _smooth_rows(points: Sequence[Point]) -> list[list[float]]:
    means = smoothed(points, LOSS_MEMORY)
    kept = range(0, len(points), max(1, math.ceil(len(points) / NUM_POINTS)))
    return [[points[n].step, *[_short(means[n])] * 3] for n in kept]


def _joined(middle: Curve, low: Curve, high: Curve) -> list[list[float]]:
    """Return measurements with their bands; one without a band has none around it."""
    lows = {point.step: point.mean for point in low.points()}
    highs = {point.step: point.mean for point in high.points()}
    return [
        [
            point.step,
            _short(point.mean),
            _short(lows.get(point.step, point.mean)),
            _short(highs.get(point.step, point.mean)),
        ]
        for point in middle.points()
    ]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Join neighbours until few enough are left; no spike is lost."""
    size = max(1, math.ceil(len(points) / NUM_POINTS))
    return [_merged(points[start : start + size]) for start in range(0, len(points), size)]


def _merged(points: Sequence[Point]) -> Point:
    count = sum(point.count for point in points)
    return Point(
        step=points[0].step,
        mean=sum(point.mean * point.count for point in points) / count,
        low=min(point.low for point in points),
        high=max(point.high for point in points),
        count=count,
    )


def _short(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT}g}")
