"""What the wizard saves and takes up: files, a kept draft, an earlier project, a broken file."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from sdft.tui.draft_values import stated
from sdft.tui.screens.mend import MendScreen
from sdft.tui.screens.wizard import WizardScreen
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import until
from tests.tui.wizarding import app_for, checked, focus, play, project, shown, toml, wizard_of

pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")


@pytest.mark.presses("ReviewPane.f5", "WizardScreen.ctrl+s")
def test_saving_writes_both_files_and_enter_on_a_problem_goes_to_its_field(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        await checked(app, pilot)
        for _ in range(5):
            await pilot.press("f3")
        await shown(app, pilot, "✗ pretrained_model_name_or_path")
        await shown(app, pilot, r"\+ preset = .sd15-12gb")
        await pilot.press("f5")
        await shown(app, pilot, "Not yet")
        await pilot.press("ctrl+s")
        await until(pilot, (folder / "config.toml").exists)
        await until(pilot, lambda: not wizard.draft.is_changed)
        await shown(app, pilot, "config.toml: as on disk")
        app.screen.query_one("#problems").focus()
        await pilot.press("enter")
        await until(pilot, lambda: wizard.step != "review")

    play(app_for(folder), script)
    assert toml(folder / "config.toml")["preset"] == "sd15-12gb"
    assert toml(folder / "dataset.toml")["datasets"][0]["resolution"] == 512


@pytest.mark.presses("ReviewPane.f6")
def test_f6_copies_the_command(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        for _ in range(5):
            await pilot.press("f3")
        await until(pilot, lambda: wizard_of(app).step == "review")
        await pilot.press("f6")
        assert app.clipboard == "sdft train config.toml"

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.presses("AskYes.y", "Shell.ctrl+q")
def test_what_was_not_saved_is_offered_the_next_time(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")

    async def first(app: WizardApp, pilot: Pilot[None]) -> None:
        await focus(app, pilot, "output_name")
        await pilot.press("end", *"cats")
        # The program dies here: only what is written down by itself is left.
        await pilot.pause(1.0)

    async def second(app: WizardApp, pilot: Pilot[None]) -> None:
        await shown(app, pilot, "not saved. Take them up again")
        await pilot.press("y")
        await until(pilot, lambda: stated(wizard_of(app).draft, "output_name").value == "pcats")
        assert app.has_unsaved is False
        await pilot.press("ctrl+q")

    play(app_for(folder), first)
    app = app_for(folder)
    play(app, second)
    assert app.has_unsaved
    assert not (folder / "config.toml").exists()


@pytest.mark.presses("WizardScreen.ctrl+r")
def test_an_earlier_project_is_opened_again(tmp_path: Path) -> None:
    first, second = project(tmp_path / "first"), project(tmp_path / "second")
    app = app_for(first)
    app._keeping.folder = tmp_path / "state"

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+s")
        await until(pilot, (first / "config.toml").exists)
        app.open(second)
        await until(pilot, lambda: wizard_of(app).draft.config.path.parent == second)
        await pilot.press("ctrl+r")
        await shown(app, pilot, "Open an earlier project")
        await pilot.press("enter")
        await until(pilot, lambda: wizard_of(app).draft.config.path.parent == first)

    play(app, script)


@pytest.mark.presses("MendScreen.ctrl+s")
def test_a_broken_file_opens_at_its_line_and_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    broken = "# first\n[general]\nenable_bucket = yes\n[[datasets]]\nresolution = 512\n"
    (folder / "dataset.toml").write_bytes(broken.replace("\n", "\r\n").encode())

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        assert isinstance(app.screen, MendScreen)
        await shown(app, pilot, "dataset.toml:3: not valid TOML")
        await pilot.press("ctrl+s")
        assert isinstance(app.screen, MendScreen)
        # The cursor stands at the line's beginning.
        await pilot.press("end", "backspace", "backspace", "backspace", *"true")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, WizardScreen))

    play(app_for(folder, Path("dataset.toml")), script)
    mended = broken.replace("yes", "true").replace("\n", "\r\n").encode()
    assert (folder / "dataset.toml").read_bytes() == mended
