"""How curves are looked at, without a screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdft.language import Words
from sdft.rundir import RunDir
from sdft.tui.ascii_filter import plain
from sdft.tui.figure import (
    ChartLine,
    ChartPlan,
    draw,
    matches,
    num_value_gaps,
    short_count,
    step_ticks,
    thinned,
    value_labels,
)
from sdft.tui.following import Seen
from sdft.tui.gpu import GpuFigures
from sdft.tui.rows import figure_rows, progress_row
from sdft.tui.themes import CURVES_ON_DARK, CURVES_ON_LIGHT, THEMES
from sdft.tui.viewing import CHARTS, Colors, Viewing, chart_names, chart_plan, step_range
from sdft.views.history import RunReader
from sdft.views.run_state import look, run_state
from sdft.views.series import Point
from tests.tui.recorder import example_run

WORDS = Words("en")
COLORS = Colors(runs=[(200, 0, 0), (0, 200, 0)], background=(0, 0, 0))


def seen_of(run: RunDir, gpu: GpuFigures | None = None) -> Seen:
    reader = RunReader(run.events_file)
    while reader.advance():
        pass
    snapshot, facts = reader.snapshot(), look(run)
    state = run_state(snapshot.summary, facts)
    return Seen(run=run, snapshot=snapshot, facts=facts, state=state, quiet_s=0.0, gpu=gpu)


@given(
    moves=st.lists(st.sampled_from(["in", "out", "left", "right"]), max_size=30),
    first=st.integers(1, 50),
    span=st.integers(1, 5000),
)
def test_a_window_never_leaves_the_run(moves: list[str], first: int, span: int) -> None:
    viewing, last = Viewing(), first + span
    for move in moves:
        if move in ("in", "out"):
            viewing = viewing.zoomed(0.5 if move == "in" else 2.0, first, last)
        else:
            viewing = viewing.moved(-0.25 if move == "left" else 0.25, first, last)
        if viewing.window is not None:
            left, right = viewing.window
            assert first <= left < right <= last


def test_zooming_in_keeps_the_newest_step_in_sight_and_out_again_shows_all() -> None:
    viewing = Viewing().zoomed(0.5, 1, 1001)
    assert viewing.window == (501, 1001)
    assert viewing.zoomed(2.0, 1, 1001).window is None


def test_a_chart_shows_raw_and_smooth_loss_and_dots_of_held_out_loss(tmp_path: Path) -> None:
    seen = seen_of(example_run(tmp_path / "cats.run").run)
    plan = chart_plan("loss", [seen], Viewing(), words=WORDS, colors=COLORS, ascii_only=False)
    raw, smooth, dots = plan.lines
    assert (raw.is_pale, smooth.is_pale, dots.is_dotted) == (True, False, True)
    assert len(raw.points) == len(smooth.points) == 230
    spread = max(p.mean for p in raw.points[100:]) - min(p.mean for p in raw.points[100:])
    smooth_spread = max(p.mean for p in smooth.points[100:]) - min(
        p.mean for p in smooth.points[100:]
    )
    assert smooth_spread < spread / 2
    assert [point.step for point in dots.points] == [50, 100, 150, 200]


def test_held_out_loss_has_its_band(tmp_path: Path) -> None:
    seen = seen_of(example_run(tmp_path / "cats.run").run)
    plan = chart_plan("validation", [seen], Viewing(), words=WORDS, colors=COLORS, ascii_only=False)
    band = plan.lines[0]
    assert band.is_pale
    assert all(point.low < point.mean < point.high for point in band.points)


def test_the_planned_memory_is_drawn_beside_the_used(tmp_path: Path) -> None:
    seen = seen_of(example_run(tmp_path / "cats.run").run)
    plan = chart_plan(
        "memory_bytes", [seen], Viewing(), words=WORDS, colors=COLORS, ascii_only=False
    )
    assert {line.points[0].mean for line in plan.lines} == {9.87e9, 11.2e9}
    assert plan.scale == 1e-9


def test_runs_are_overlaid_each_in_its_colour(tmp_path: Path) -> None:
    runs = [seen_of(example_run(tmp_path / f"{n}.run", seed=n).run) for n in range(2)]
    plan = chart_plan("lr", runs, Viewing(), words=WORDS, colors=COLORS, ascii_only=False)
    assert [line.color for line in plan.lines] == [(200, 0, 0), (0, 200, 0)]
    assert step_range(runs) == (1, 230)


def test_a_window_cuts_every_chart(tmp_path: Path) -> None:
    seen = seen_of(example_run(tmp_path / "cats.run").run)
    viewing = Viewing(window=(60, 120))
    for name in CHARTS:
        plan = chart_plan(name, [seen], viewing, words=WORDS, colors=COLORS, ascii_only=False)
        steps = [point.step for line in plan.lines for point in line.points]
        assert steps
        assert min(steps) >= 60
        assert max(steps) <= 120


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", list(CHARTS)),
        ("loss", ["loss", "validation"]),
        ("LEARN*", ["lr"]),
        ("grad?norm", ["grad_norm"]),
        ("[", []),
    ],
)
def test_curves_are_chosen_by_pattern(pattern: str, expected: list[str]) -> None:
    assert chart_names(Viewing(pattern=pattern), WORDS) == expected


def test_a_pattern_is_found_anywhere_in_the_name() -> None:
    assert matches("learning rate", "rate")
    assert matches("learning rate", "l*g")
    assert not matches("loss", "rate")


def test_thinning_keeps_the_extremes_and_the_count() -> None:
    points = [Point(n, float(n % 7), float(n % 7), float(n % 7), 1) for n in range(1000)]
    points[500] = Point(500, 99.0, 99.0, 99.0, 1)
    thin = thinned(points, 50)
    assert len(thin) <= 50
    assert max(point.high for point in thin) == 99.0
    assert sum(point.count for point in thin) == 1000


def chart(values: list[float], **settings: object) -> ChartPlan:
    points = [Point(n, value, value, value, 1) for n, value in enumerate(values)]
    line = ChartLine(name="x", points=points, color=(9, 9, 9))
    return ChartPlan(title="x", lines=(line,), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(16, 4), (60, 12), (200, 50)])
@pytest.mark.parametrize("log_scale", [False, True])
def test_a_drawing_fills_its_place_and_no_more(size: tuple[int, int], log_scale: bool) -> None:
    for values in ([1.0], [0.0, 0.0], [-3.0, 5.0], [1e-9, 1e9], [n * 1.0 for n in range(999)]):
        lines = draw(chart(values, log_scale=log_scale), *size).plain.rstrip("\n").split("\n")
        assert len(lines) <= size[1]
        assert max(map(len, lines)) <= size[0]


def test_an_ascii_drawing_is_ascii() -> None:
    text = draw(chart([3.0, 1.0, 2.0], ascii_only=True), 60, 12)
    assert text.plain.isascii()
    assert "*" in text.plain


def test_the_filter_replaces_drawing_glyphs_and_leaves_peoples_text() -> None:
    assert plain("┌─┐│█▄░⣿•…") == "+-+|##.**~"
    assert plain("猫のカフェ é") == "猫のカフェ é"


def test_axis_names_are_round_and_distinct() -> None:
    assert step_ticks(1, 2_000_000, 4) == [500_000, 1_000_000, 1_500_000, 2_000_000]
    assert step_ticks(7, 9, 4) == [7, 8, 9]
    assert [short_count(n) for n in (900, 1000, 1500, 20_000, 1_500_000)] == [
        "900",
        "1k",
        "1500",
        "20k",
        "1500k",
    ]
    assert len(set(value_labels([0.10001, 0.10002, 0.10003]))) == 3
    assert all(1 <= num_value_gaps(rows) <= 5 for rows in range(1, 60))


def test_the_gpu_is_shown_where_it_is_known(tmp_path: Path) -> None:
    run = example_run(tmp_path / "cats.run").run
    gpu = GpuFigures(temperature_c=71, load_percent=98, used_bytes=1, total_bytes=2)
    assert ("GPU", "71 C, 98 %") in figure_rows(seen_of(run, gpu), WORDS)
    assert not [name for name, _ in figure_rows(seen_of(run), WORDS) if name == "GPU"]


def test_the_stage_at_work_is_shown_before_the_first_step(tmp_path: Path) -> None:
    from sdft.events import StageStarted
    from tests.tui.recorder import Recorder

    recorder = Recorder(tmp_path / "cats.run")
    recorder.lock()
    recorder.emit(StageStarted(stage="latents", total=320, unit="images"))
    assert progress_row(seen_of(recorder.run), WORDS).plain == "latents: 0 of 320 images"


def linear(channel: int) -> float:
    share = channel / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def luminance(color: str) -> float:
    red, green, blue = (linear(int(color[n : n + 2], 16)) for n in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_and_curves_stand_out_in_every_theme() -> None:
    for theme in THEMES:
        background = luminance(theme.background or "")
        curves = CURVES_ON_DARK if theme.dark else CURVES_ON_LIGHT
        for color, least in ((theme.foreground or "", 7.0), *((curve, 3.0) for curve in curves)):
            light, dark = sorted((luminance(color), background), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, (theme.name, color)


def deuteranope(color: str) -> tuple[float, float]:
    """Return what is left of a colour without green receptors: yellow-blue and brightness.

    Source: Vienot, Brettel and Mollon 1999, the projection for deuteranopes, in linear RGB.
    """
    red, green, blue = (linear(int(color[n : n + 2], 16)) for n in (1, 3, 5))
    long = 0.29275 * red + 0.70725 * green
    return long, -0.02234 * red + 0.02234 * green + blue


def test_the_curves_colours_are_told_apart_without_green_receptors() -> None:
    for colors in (CURVES_ON_DARK[:3], CURVES_ON_LIGHT[:3]):
        for position, one in enumerate(colors):
            for other in colors[position + 1 :]:
                distance = sum(
                    abs(a - b) for a, b in zip(deuteranope(one), deuteranope(other), strict=True)
                )
                assert distance > 0.08, (one, other)
