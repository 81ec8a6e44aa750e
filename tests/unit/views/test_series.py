"""Curves keep what matters in bounded memory."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdft.views.series import Curve, Point, smoothed

finite = st.floats(-1e6, 1e6)


@given(values=st.lists(finite, max_size=300), chunk=st.integers(1, 40))
def test_a_curve_keeps_count_sum_and_extremes_whatever_the_chunks(
    values: list[float], chunk: int
) -> None:
    curve = Curve(max_buckets=16)
    for start in range(0, len(values), chunk):
        part = values[start : start + chunk]
        curve.extend(range(start, start + len(part)), part)
    points = curve.points()
    assert len(points) <= 16
    assert curve.num_values == len(values) == sum(point.count for point in points)
    if values:
        assert min(point.low for point in points) == min(values)
        assert max(point.high for point in points) == max(values)
        total = sum(point.mean * point.count for point in points)
        assert total == pytest.approx(math.fsum(values), abs=1e-6 * len(values) * 1e3)
        assert points[0].step == 0


def test_a_spike_among_a_million_steps_is_still_there() -> None:
    curve = Curve()
    for start in range(0, 1_000_000, 10_000):
        values = [0.1] * 10_000
        if start == 500_000:
            values[77] = 9.0
        curve.extend(range(start, start + 10_000), values)
    assert len(curve) <= 4096
    (spike,) = [point for point in curve.points() if point.high == 9.0]
    assert spike.step <= 500_077 < spike.step + spike.count


def test_a_step_that_comes_again_replaces_what_was_after_it() -> None:
    curve = Curve()
    curve.extend(range(1, 11), [1.0] * 10)
    curve.extend(range(6, 9), [2.0] * 3)
    assert [(point.step, point.mean) for point in curve.points()] == [
        *((step, 1.0) for step in range(1, 6)),
        *((step, 2.0) for step in range(6, 9)),
    ]


def test_what_is_no_number_has_no_place() -> None:
    curve = Curve()
    curve.extend([1, 2, 3, 4], [1.0, math.nan, math.inf, 2.0])
    assert [point.step for point in curve.points()] == [1, 4]


def test_a_copy_does_not_change_with_its_original() -> None:
    curve = Curve()
    curve.add(1, 1.0)
    copy = curve.copy()
    curve.add(2, 2.0)
    copy.add(5, 5.0)
    assert [point.step for point in curve.points()] == [1, 2]
    assert [point.step for point in copy.points()] == [1, 5]


def test_a_window_shows_the_steps_in_it() -> None:
    curve = Curve()
    curve.extend(range(10), [0.0] * 10)
    assert [point.step for point in curve.points(3, 5)] == [3, 4, 5]


def test_smoothing_is_the_textbooks_corrected_fading_mean() -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    points = [Point(step, value, value, value, 1) for step, value in enumerate(values)]
    for end, found in enumerate(smoothed(points, 0.9), 1):
        weights = [0.9 ** (end - 1 - place) for place in range(end)]
        expected = sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights)
        assert found == pytest.approx(expected)
    assert smoothed(points, 0.0) == values
