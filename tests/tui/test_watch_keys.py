"""Every key of the dashboard does what the help says."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Input, TabbedContent

from sdft.rundir import RunDir
from sdft.tui.screens.ask import AskRuns
from sdft.tui.screens.help import HelpScreen
from sdft.tui.themes import THEMES
from sdft.tui.watch_app import WatchApp
from sdft.tui.widgets.chart import Chart
from sdft.tui.widgets.samples import Samples
from tests.tui.piloting import play, screen_of, text_of, until, until_shown
from tests.tui.recorder import COMMAND, example_run

# textual-image calls a function that Pillow 14 will not have; our dependency stops below 14.
pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return example_run(tmp_path / "cats.run").run


def colors_of(chart: Chart) -> set[str]:
    """Return the colours of a drawing's dots; axes and names have none."""
    assert isinstance(chart.drawing, Text)
    return {str(span.style) for span in chart.drawing.spans if span.style}


def app_on(run: RunDir) -> WatchApp:
    return WatchApp(run, language="en")


PARTS = (
    ("2", "curves", "gradient norm"),
    ("1", "overview", "loss, smoothed"),
    ("3", "samples", "picture 1 of 2"),
    ("4", "images", "smaller than 64 px"),
    ("5", "log", "epoch 4 done at step 200"),
    ("6", "config", 'output_name = "cats"'),
)


@pytest.mark.presses(
    "WatchScreen.1",
    "WatchScreen.2",
    "WatchScreen.3",
    "WatchScreen.4",
    "WatchScreen.5",
    "WatchScreen.6",
)
def test_a_number_brings_up_a_part(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        for key, name, shown in PARTS:
            await pilot.press(key)
            assert screen_of(app).query_one(TabbedContent).active == name
            await until_shown(app, pilot, shown)

    play(app_on(run), script)


def test_a_click_on_a_tab_brings_up_its_part(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.click("ContentTab#--content-tab-log")
        await until_shown(app, pilot, "epoch 4 done")

    play(app_on(run), script)


def test_the_overview_shows_every_figure_of_the_run(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "running")
        for shown in (
            "step 230 of 400",
            "epoch 5 of 8",
            "left",
            "loss, smoothed",
            "held-out loss",
            "learning rate",
            "gradient norm",
            "images/s",
            "9.87 GB, plan 11.2 GB",
            "bucket",
            "320, 1 not used",
            "12 captions are longer",
            "cuda:0",
            "sd-v1-5.safetensors",
        ):
            assert shown in text_of(app), shown
        await until_shown(app, pilot, "[⠁-⣿]{3}")

    play(app_on(run), script)


@pytest.mark.presses("WatchScreen.g")
def test_g_makes_the_scale_logarithmic_and_linear_again(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("2", "g")
        assert screen_of(app).viewing.log_scale
        chart = screen_of(app).query_one("#chart-loss", Chart)
        # Half way up a logarithmic scale stands the geometric mean, not 0.13.
        await until(pilot, lambda: "0.11┤" in str(chart.drawing))
        await pilot.press("g")
        assert not screen_of(app).viewing.log_scale

    play(app_on(run), script)


@pytest.mark.presses("WatchScreen.m")
def test_m_goes_through_the_smoothings(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        seen = []
        for _ in range(4):
            await pilot.press("m")
            seen.append(screen_of(app).viewing.smoothing)
        assert sorted(seen) == [0.0, 0.9, 0.98, 0.995]

    play(app_on(run), script)


@pytest.mark.presses(
    "WatchScreen.plus",
    "WatchScreen.minus",
    "WatchScreen.0",
    "WatchScreen.left",
    "WatchScreen.right",
)
def test_plus_minus_0_and_arrows_zoom_and_move(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("2", "plus")
        first, last = screen_of(app).viewing.window or (0, 0)
        assert last == 230
        assert 110 <= first <= 120
        await pilot.press("left")
        moved = screen_of(app).viewing.window or (0, 0)
        assert moved[0] < first
        await until_shown(app, pilot, f"steps {moved[0]} to {moved[1]}")
        await pilot.press("right", "right", "right")
        assert (screen_of(app).viewing.window or (0, 0))[1] == 230
        await pilot.press("minus")
        assert screen_of(app).viewing.window is None
        await pilot.press("plus", "plus", "0")
        assert screen_of(app).viewing.window is None

    play(app_on(run), script)


@pytest.mark.presses("WatchScreen.slash")
def test_slash_filters_the_curves_by_pattern(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"rate")
        assert isinstance(app.focused, Input)
        shown = [chart.id for chart in screen_of(app).query("#charts Chart") if chart.display]
        assert shown == ["chart-lr"]
        await pilot.press("enter")
        assert isinstance(app.focused, Chart)
        await pilot.press("slash", *"zzz")
        await until_shown(app, pilot, "No curve matches zzz")

    play(app_on(run), script)


@pytest.mark.presses("WatchScreen.enter")
def test_enter_shows_the_focused_chart_alone(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("2", "enter")
        assert screen_of(app).maximized is screen_of(app).query_one("#chart-loss")
        await pilot.press("escape")
        assert screen_of(app).maximized is None
        await pilot.press("enter", "enter")
        assert screen_of(app).maximized is None

    play(app_on(run), script)


@pytest.mark.presses("WatchScreen.up", "WatchScreen.down", "WatchScreen.c")
def test_samples_scrub_along_steps_and_prompts_and_two_are_compared(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await until_shown(app, pilot, "step 230   picture 1 of 2   seed 1")
        await until_shown(app, pilot, "[░▒▓█▀]{8}")
        await pilot.press("down")
        await until_shown(app, pilot, "step 230   picture 2 of 2   seed 2")
        await until_shown(app, pilot, "a cat on a sofa, evening light")
        await pilot.press("left")
        await until_shown(app, pilot, "step 100   picture 2 of 2   seed 2")
        await pilot.press("left", "up", "c", "right")
        await until_shown(app, pilot, "kept at step 100")
        await until_shown(app, pilot, "step 230   picture 1 of 2")
        await pilot.press("c")
        assert screen_of(app).query_one(Samples).kept is None
        assert "kept at" not in text_of(app)

    play(app_on(run), script)


def test_a_new_sample_comes_up_by_itself_unless_the_person_went_back(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await until_shown(app, pilot, "step 230")
        recorder.do_steps(5)
        recorder.sample("a cat in the snow", seed=1)
        await until_shown(app, pilot, "step 235   picture 1 of 1")
        await pilot.press("left")
        recorder.do_steps(5)
        recorder.sample("a cat in the snow", seed=1)
        await until(pilot, lambda: len(screen_of(app).query_one(Samples).samples) == 6)
        assert "step 230   picture" in text_of(app)

    play(app_on(recorder.run), script)


@pytest.mark.presses("WatchScreen.e")
def test_e_writes_the_curves_as_a_table_and_pictures(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("e")
        await until(pilot, lambda: list((run.path / "curves").glob("*step_s.png")))

    play(app_on(run), script)
    with (run.path / "curves" / "cats.csv").open() as file:
        rows = list(csv.DictReader(file))
    raw = [row for row in rows if row["curve"] == "raw"]
    assert [int(row["step"]) for row in raw] == list(range(1, 231))
    assert 0.05 < float(raw[0]["mean"]) < 0.3
    with Image.open(run.path / "curves" / "cats-loss.png") as picture:
        assert len(picture.getcolors(1 << 20) or []) > 3


@pytest.mark.presses("WatchScreen.o", "AskRuns.enter")
def test_o_draws_another_run_beside_this_one(tmp_path: Path) -> None:
    run = example_run(tmp_path / "cats.run").run
    example_run(tmp_path / "dogs.run", seed=3, steps_done=150)

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, AskRuns))
        await pilot.press("space", "enter")
        await until_shown(app, pilot, "■ cats   ■ dogs")
        chart = screen_of(app).query_one("#overview-loss", Chart)
        runs = screen_of(app)._colors().runs[:2]
        names = {f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in runs}
        await until(pilot, lambda: colors_of(chart) == names)
        await pilot.press("2")
        assert "■ cats   ■ dogs" in text_of(app)
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, AskRuns))
        await pilot.press("space", "enter")
        await until(pilot, lambda: not screen_of(app).others)

    play(app_on(run), script)


@pytest.mark.presses("AskRuns.escape")
def test_escape_leaves_the_runs_beside_this_one_as_they_were(tmp_path: Path) -> None:
    run = example_run(tmp_path / "cats.run").run
    example_run(tmp_path / "dogs.run")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, AskRuns))
        await pilot.press("space", "escape")
        await until(pilot, lambda: app.screen is screen_of(app))
        assert not screen_of(app).others

    play(app_on(run), script)


@pytest.mark.presses(
    "WatchScreen.equals_sign", "WatchScreen.less_than_sign", "WatchScreen.greater_than_sign"
)
def test_equals_and_angles_zoom_and_move_where_there_is_no_plus_or_arrow(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("2", "equals_sign")
        zoomed = screen_of(app).viewing.window or (0, 0)
        assert zoomed[0] > 100
        await pilot.press("less_than_sign")
        assert (screen_of(app).viewing.window or (0, 0))[0] < zoomed[0]
        await pilot.press("greater_than_sign")
        assert screen_of(app).viewing.window == zoomed

    play(app_on(run), script)


def test_o_says_so_where_there_is_no_other_run(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("o")
        await until_shown(app, pilot, "no other run")

    play(app_on(run), script)


def test_f1_explains_the_focused_part_and_escape_closes_it(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("f1")
        await until_shown(app, pilot, "Help: the dashboard")
        await pilot.press("escape", "3", "f1")
        await until_shown(app, pilot, "Help: pictures")
        await pilot.press("f1", "2", "f1")
        await until_shown(app, pilot, "Help: a curve")
        await pilot.press("q")
        assert not isinstance(app.screen, HelpScreen)

    play(app_on(run), script)


def test_tab_goes_from_part_to_part(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        focused = []
        for _ in range(2):
            await pilot.press("tab")
            focused.append(app.focused.id if app.focused else None)
        assert focused == ["overview-loss", "figures-box"]

    play(app_on(run), script)


def test_the_palette_has_every_command_of_the_screen(run: RunDir) -> None:
    app = app_on(run)

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Pause", "Save", "Stop", "Log scale", "Export", "Theme", "Quit"} <= titles
        await pilot.press("ctrl+p")
        await until_shown(app, pilot, "Search")
        await pilot.press(*"Log scale")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await until(pilot, lambda: screen_of(app).viewing.log_scale)

    play(app, script)


@pytest.mark.presses("Steering.y")
def test_y_copies_the_command_that_goes_on(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    recorder.stop()

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "stopped: interrupted")
        await pilot.press("y")
        assert app.clipboard == f"{COMMAND} --resume auto"

    play(app_on(recorder.run), script)


def test_q_leaves_at_once(run: RunDir) -> None:
    app = app_on(run)

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("q")

    play(app, script)
    assert app.return_code == 0


def test_every_theme_draws_the_screen_and_its_curves_in_its_own_colours(run: RunDir) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        chart = screen_of(app).query_one("#overview-loss", Chart)
        seen = set()
        for theme in THEMES:
            app.theme = theme.name
            await pilot.pause()
            wanted = {
                f"#{red:02x}{green:02x}{blue:02x}"
                for red, green, blue in (screen_of(app)._colors().pale(0),)
            }
            await until(pilot, lambda wanted=wanted: wanted <= colors_of(chart))
            seen |= wanted
        assert len(seen) == len(THEMES)

    play(app_on(run), script)
