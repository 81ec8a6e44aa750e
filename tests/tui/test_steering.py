"""The keys that steer: each asks once, sends one command, shows the run's own answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from sdft.tui.screens.ask import AskRate, AskYes
from sdft.tui.watch_app import WatchApp
from sdft.views.history import RunReader
from sdft.views.summary import Summary
from tests.tui.fake_training import FakeTraining
from tests.tui.piloting import play, screen_of, text_of, until, until_shown
from tests.tui.recorder import example_run


@pytest.fixture
def training(tmp_path: Path) -> Iterator[FakeTraining]:
    """A training that goes on until it is asked to stop."""
    training = FakeTraining(tmp_path / "cats.run", steps=100_000, step_s=0.01)
    thread = threading.Thread(target=training.train)
    thread.start()
    while not training.recorder.run.events_file.exists():
        time.sleep(0.01)
    yield training
    training.reason = "interrupted"
    thread.join()


def app_on(training: FakeTraining) -> WatchApp:
    return WatchApp(training.recorder.run, language="en")


def summary_of(training: FakeTraining) -> Summary:
    reader = RunReader(training.recorder.run.events_file)
    while reader.advance():
        pass
    return reader.snapshot().summary


async def running(app: WatchApp, pilot: Pilot[None]) -> None:
    await until(pilot, lambda: screen_of(app).seen.state.name == "running")


@pytest.mark.parametrize(
    ("key", "command", "answer"),
    [
        pytest.param(*case, marks=pytest.mark.presses(f"Steering.{case[0]}"))
        for case in (
            ("s", "sample", "1 picture"),
            ("w", "save", "saved step"),
            ("x", "stop", "stops after step"),
        )
    ],
)
def test_a_key_asks_once_and_shows_the_runs_answer(
    training: FakeTraining, key: str, command: str, answer: str
) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await running(app, pilot)
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, AskYes))
        await pilot.press("enter")
        assert not isinstance(app.screen, AskYes)
        await until_shown(app, pilot, f"{command}: {answer}")

    play(app_on(training), script)
    (answered,) = summary_of(training).answers
    assert (answered.command, answered.sender, answered.ok) == (command, "dashboard", True)


@pytest.mark.parametrize(
    "no", [pytest.param(no, marks=pytest.mark.presses(f"AskYes.{no}")) for no in ("escape", "n")]
)
def test_no_sends_nothing(training: FakeTraining, no: str) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await running(app, pilot)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, AskYes))
        await pilot.press(no)
        await pilot.pause(0.3)

    play(app_on(training), script)
    assert summary_of(training).answers == ()
    assert training.reason is None


@pytest.mark.presses("AskRate.escape")
def test_escape_leaves_the_learning_rate_as_it_is(training: FakeTraining) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await running(app, pilot)
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, AskRate))
        await pilot.press("1", "escape")
        await until(pilot, lambda: not isinstance(app.screen, AskRate))
        await pilot.pause(0.3)

    play(app_on(training), script)
    assert summary_of(training).answers == ()


@pytest.mark.presses("AskYes.enter")
def test_enter_is_a_yes_where_no_button_has_the_keys(training: FakeTraining) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await running(app, pilot)
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, AskYes))
        # As a click beside the buttons does.
        app.screen.set_focus(None)
        await pilot.press("enter")
        await until_shown(app, pilot, "save: saved step")

    play(app_on(training), script)


def test_a_click_on_yes_is_a_yes(training: FakeTraining) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await running(app, pilot)
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, AskYes))
        await pilot.click("#yes")
        await until_shown(app, pilot, "save: saved step")

    play(app_on(training), script)


@pytest.mark.presses("Steering.p:pause", "Steering.p:resume")
def test_p_pauses_shows_it_and_goes_on(training: FakeTraining) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await running(app, pilot)
        assert "p Pause" in text_of(app)
        await pilot.press("p", "y")
        await until_shown(app, pilot, "● paused")
        await until_shown(app, pilot, "p Resume")
        step = training.recorder.step
        await pilot.pause(0.3)
        assert training.recorder.step == step
        await pilot.press("p", "y")
        await until_shown(app, pilot, "● running")
        await until(pilot, lambda: training.recorder.step > step)

    play(app_on(training), script)


@pytest.mark.presses("Steering.l")
def test_l_sets_the_learning_rate(training: FakeTraining) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await running(app, pilot)
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, AskRate))
        await pilot.press(*"fast", "enter")
        await until_shown(app, pilot, "a number from 0 to 1")
        app.screen.query_one(Input).value = "3e-6"
        await pilot.press("enter")
        await until_shown(app, pilot, "set: learning_rate 3e-06 from the next step on")

    play(app_on(training), script)
    assert training.rate == 3e-6


def test_a_refusal_is_shown_as_one(training: FakeTraining) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await running(app, pilot)
        screen_of(app).send("set", learning_rate=0.5)
        await until_shown(app, pilot, "set: refused: too much for this model")

    play(app_on(training), script)


@pytest.mark.presses("AskYes.y")
def test_leaving_does_not_wait_for_an_answer(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")  # at work, but it never answers

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("w", "y")
        await until_shown(app, pilot, "save: asked; the run answers when its step ends")

    app = WatchApp(recorder.run, language="en")
    play(app, script)


def test_a_run_that_is_not_at_work_is_not_asked(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    recorder.finish()

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        for key in ("p", "s", "w", "x", "l"):
            await pilot.press(key)
            assert app.screen is screen_of(app)
        await until_shown(app, pilot, "not at work")

    play(WatchApp(recorder.run, language="en"), script)
    assert not recorder.run.control.exists()
