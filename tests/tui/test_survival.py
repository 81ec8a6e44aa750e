"""What a dashboard meets in life: dead runs, half lines, strange text, small terminals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from textual.pilot import Pilot

from sdft.events import ItemRejected, Notice, SampleSaved
from sdft.rundir import RunDir
from sdft.tui.watch_app import WatchApp
from tests.tui.piloting import play, screen_of, text_of, until, until_shown
from tests.tui.recorder import COMMAND, Recorder, example_run

HOSTILE = (
    "a [red]b[/] [/red] [@click=app.quit]x[/] \\[ {0} $primary \x1b[31m\x07 🐈‍⬛ ｱ\u202e e\u0301 %s"
)
HOSTILE_SHOWN = r"a [red]b[/] [/red] [@click=app.quit]x[/] \[ {0} $primary \x1b[31m\x07 🐈"

pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")


def test_a_killed_run_says_so_and_how_it_goes_on(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    recorder.lock(alive=False)

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "● died")
        assert "is gone without a word" in text_of(app)
        assert f"{COMMAND} --resume auto" in text_of(app)

    play(WatchApp(recorder.run, language="en"), script)


def test_the_last_error_is_the_reason_of_a_death(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    recorder.warn("out of memory: 512 MB more were needed", severity="error")
    recorder.unlock()

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "died: out of memory: 512 MB more were needed")

    play(WatchApp(recorder.run, language="en"), script)


def test_a_run_dies_while_it_is_watched(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "● running")
        recorder.lock(alive=False)
        await until_shown(app, pilot, "● died")
        recorder.lock()
        recorder.step = 200
        recorder.begin("cats", first_step=201)
        recorder.do_steps(3)
        await until_shown(app, pilot, "step 203 of 400")
        await until_shown(app, pilot, "● running")

    play(WatchApp(recorder.run, language="en"), script)


def test_a_run_that_ended_last_week_is_shown(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run", steps_done=400)
    recorder.finish()

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "● finished")
        assert "step 400 of 400" in text_of(app)
        assert "left" not in text_of(app).splitlines()[1]

    play(WatchApp(recorder.run, language="en"), script)


def test_a_folder_without_a_word_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "cats.run"
    path.mkdir()

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "waiting for the run")
        for key in "23456":
            await pilot.press(key)
        recorder = Recorder(path)
        recorder.lock()
        recorder.begin()
        recorder.do_steps(5)
        await until_shown(app, pilot, "step 5 of 400")

    play(WatchApp(RunDir(path), language="en"), script)


def test_a_half_written_line_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    recorder.do_steps(1)
    whole = recorder.run.events_file.read_bytes()
    recorder.run.events_file.write_bytes(whole[:-40])

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "step 230 of 400")
        recorder.run.events_file.write_bytes(whole)
        await until_shown(app, pilot, "step 231 of 400")

    play(WatchApp(recorder.run, language="en"), script)


def test_a_clock_that_jumps_bends_no_figure(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run", steps_done=100)
    recorder.time_s -= 1e9
    recorder.do_steps(10)
    recorder.time_s += 2e9
    recorder.do_steps(10)

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "step 120 of 400")
        assert "3m 3" in text_of(app)  # 280 steps of 0.77 s
        await pilot.press("5")
        await until_shown(app, pilot, "epoch 2 done")

    play(WatchApp(recorder.run, language="en"), script)


def test_text_from_files_is_shown_as_it_is_and_breaks_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "[red]x[/] 🐈.run", model=HOSTILE)
    recorder.lock()
    recorder.begin(HOSTILE)
    recorder.do_steps(60)
    for severity in ("warning", "error"):
        recorder.emit(Notice(severity=severity, topic="t", message=HOSTILE))
    recorder.emit(ItemRejected(path=HOSTILE, reason=HOSTILE))
    recorder.emit(SampleSaved(step=60, path=f"{HOSTILE}.png", prompt=HOSTILE, seed=1))
    recorder.run.config_file.write_text(f"name = '''{HOSTILE}'''\n")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        for key in "134562":
            await pilot.press(key)
            if key != "2":
                await until_shown(app, pilot, r"a \[red\]b\[/\] \[/red\] \[@click=app.quit\]x\[/\]")
            assert "\x1b" not in text_of(app)
            assert "\u202e" not in text_of(app)
            await pilot.press("f1", "escape", "o", "escape")

    play(WatchApp(recorder.run, language="en"), script)


def test_hostile_words_of_a_dead_run_and_of_an_answer_are_shown_as_they_are(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    recorder.stop(reason=HOSTILE)

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: HOSTILE_SHOWN in text_of(app))
        screen_of(app).asked = HOSTILE
        await pilot.pause()
        assert text_of(app).count(HOSTILE_SHOWN) == 2
        screen_of(app).notify(HOSTILE, markup=False)
        await pilot.pause(0.2)

    play(WatchApp(recorder.run, language="en"), script)


def test_foreign_and_damaged_events_are_passed_over(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run", steps_done=100)
    with recorder.run.events_file.open("ab") as file:
        file.write(b'{"event": "StepDone", "time": 1, "step": "x", "loss": []}\n')
        file.write(
            b'{"event": "StepDone", "time": 1.0, "step": 1, "epoch": 1, "loss": e, "lr": -,'
            b' "bucket": [1, 2], "grad_norm": x, "items": 1, "duration_s": ., "memory_bytes": y}\n'
        )
        file.write(b'{"event": "RunStarted", "time": "soon", "steps": null}\n')
        file.write(b"\x00\xff\xfe" * 100_000 + b"\n[[[[\nnull\n\n" + b"[" * 100_000 + b"\n")
        file.write(b'{"event": "Notice", "time": 1e999, "severity": 3, "topic": 4, "message": 5}\n')
    recorder.do_steps(1)

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "step 101 of 400")
        for key in "23456":
            await pilot.press(key)

    play(WatchApp(recorder.run, language="en"), script)


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (20, 5), (300, 80)])
def test_a_terminal_of_any_size_shows_it_and_may_change(tmp_path: Path, size) -> None:
    recorder = example_run(tmp_path / "cats.run")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        for key in "123456":
            await pilot.press(key)
        await pilot.resize_terminal(80, 24)
        await pilot.press("1")
        await until_shown(app, pilot, "loss, smoothed +0.0")
        assert all(len(line) <= 80 for line in text_of(app).splitlines())

    play(WatchApp(recorder.run, language="en"), script, size=size)


def test_no_color_shows_no_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    recorder = example_run(tmp_path / "cats.run")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "[⠁-⣿]{3}")
        colors = set()
        for strip in app.screen._compositor.render_strips():
            segments = list(strip)
            for line_filter in app.get_line_filters():
                segments = line_filter.apply(segments, app.screen.background_colors[1])
            for segment in segments:
                color = segment.style.color if segment.style else None
                if color is not None and color.triplet is not None:
                    colors.add(color.triplet)
        assert colors
        assert all(red == green == blue for red, green, blue in colors)

    play(WatchApp(recorder.run, language="en"), script)


def test_ascii_draws_with_ascii_alone(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        for key in "123456":
            await pilot.press(key)
            if key == "3":
                await until_shown(app, pilot, "[.:#%]{6}")
            await pilot.press("p")
            await until_shown(app, pilot, "Enter: yes")
            shown = text_of(app)
            assert shown.isascii(), sorted(set(shown) - set(map(chr, range(128))))
            assert "+---" in shown
            await pilot.press("escape", "f1")
            assert text_of(app).isascii()
            await pilot.press("escape")

    play(WatchApp(recorder.run, language="en", ascii_only=True), script, size=(80, 24))


def test_a_quiet_run_is_shown_to_be_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdft.tui.rows.QUIET_AT_LEAST_S", 0.2)
    monkeypatch.setattr("sdft.tui.rows.QUIET_AFTER_STEPS", 0)
    monkeypatch.setattr("sdft.tui.following.QUIET_REDRAW_S", 0.2)
    recorder = example_run(tmp_path / "cats.run")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "no news for [0-9.]+s")

    play(WatchApp(recorder.run, language="en"), script)


def test_a_run_moved_aside_and_begun_anew_is_followed(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until_shown(app, pilot, "step 230")
        recorder.run.events_file.rename(tmp_path / "old.jsonl")
        again = Recorder(tmp_path / "cats.run")
        again.begin("new")
        again.do_steps(7)
        await until_shown(app, pilot, "step 7 of 400")
        assert screen_of(app).seen.snapshot.curves["loss"].num_values == 7

    play(WatchApp(recorder.run, language="en"), script)


def test_closing_leaves_the_run_folder_as_it_was(tmp_path: Path) -> None:
    recorder = example_run(tmp_path / "cats.run")
    before = {
        path: (os.stat(path).st_mtime_ns, path.stat().st_size) for path in recorder.path.rglob("*")
    }

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        for key in "123456":
            await pilot.press(key)

    play(WatchApp(recorder.run, language="en"), script)
    assert before == {
        path: (os.stat(path).st_mtime_ns, path.stat().st_size) for path in recorder.path.rglob("*")
    }
