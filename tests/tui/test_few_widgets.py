"""What stands in the place of Textual's parts, with fewer widgets, answers as they do."""

from __future__ import annotations

from pathlib import Path

from textual._compositor import Compositor
from textual.pilot import Pilot
from textual.widgets._select import SelectOverlay

from sdft.tui.widgets.step_row import StepRow
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import text_of, until
from tests.tui.wizarding import checked, focus, play, project, ready, wizard_of


def test_a_click_on_a_step_or_the_line_below_it_goes_there(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await checked(app, pilot)
        wizard = wizard_of(app)
        row = text_of(app).splitlines()[1]
        for step, name, below in (("words", "3 Words", 0), ("training", "5 Training", 1)):
            await pilot.click("#steps", offset=(row.index(name), below))
            await until(pilot, lambda step=step: wizard.step == step)
            line = text_of(app).splitlines()[2]
            # Between the two ends is the name of the present step.
            assert line.index("╸") == row.index(name) - 1
        await pilot.click("#steps", offset=(115, 0))
        await pilot.pause()
        assert wizard.step == "training"

    play(ready(project(tmp_path / "p")), script)


def test_a_step_is_bright_under_the_pointer(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await checked(app, pilot)
        row = app.screen.query_one(StepRow)
        at = text_of(app).splitlines()[1].index("6 Review")

        def color() -> object:
            return row.render_line(0).crop(at, at + 1)._segments[0].style.color  # type: ignore[union-attr]

        dim = color()
        await pilot.hover("#steps", offset=(at, 0))
        assert color() != dim
        await pilot.hover("#hint")
        assert color() == dim

    play(ready(project(tmp_path / "p")), script)


def test_the_present_step_is_in_sight_where_not_all_have_room(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await checked(app, pilot)
        for _ in range(5):
            await pilot.press("f3")
        await until(pilot, lambda: wizard_of(app).step == "review")
        names, line = text_of(app).splitlines()[1:3]
        assert "6 Review" in names
        assert "1 Model" not in names
        assert line.index("╸") == names.index("6 Review") - 1

    play(ready(project(tmp_path / "p")), script, size=(44, 24))


def test_a_click_opens_the_list_of_a_choice_and_escape_shuts_it(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        field = await focus(app, pilot, "lr_scheduler")
        overlay = field.query_one(SelectOverlay)
        await pilot.click(field.query_one("ChoiceRow"))
        await until(pilot, lambda: overlay.display)
        assert "▲" in text_of(app).splitlines()[field.region.y]
        await pilot.press("escape")
        await until(pilot, lambda: not overlay.display)
        assert "▼" in text_of(app).splitlines()[field.region.y]

    play(ready(project(tmp_path / "p")), script)


def test_a_layout_with_new_widgets_is_worked_out_once(tmp_path: Path, monkeypatch) -> None:
    calls: list[str] = []
    for name in ("reflow", "_arrange_root"):
        original = getattr(Compositor, name)

        def noted(*given, name=name, original=original, **named):
            calls.append(name)
            return original(*given, **named)

        monkeypatch.setattr(Compositor, name, noted)

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await checked(app, pilot)
        calls.clear()
        for _ in range(4):
            await pilot.press("f3")
            await until(pilot, wizard_of(app).pane.is_filled.is_set)
        assert calls.count("reflow") > 10
        # A scrolled list is arranged anew for what is in sight, so a few more than one each.
        assert calls.count("_arrange_root") < 1.2 * calls.count("reflow")

    play(ready(project(tmp_path / "p")), script)
