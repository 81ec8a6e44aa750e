"""Going through the wizard's steps and fields, and the keys that every step has."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from sdft.tui.draft_values import stated
from sdft.tui.screens.wizard import STEPS
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import text_of, until
from tests.tui.wizarding import (
    app_for,
    checked,
    focus,
    play,
    project,
    ready,
    shown,
    type_in,
    wizard_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")


@pytest.mark.presses("WizardScreen.f2", "WizardScreen.f3")
def test_f3_and_f2_go_through_the_steps_and_stop_at_the_ends(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        await pilot.press("f2")
        assert wizard.step == "model"
        for step in (*STEPS[1:], STEPS[-1]):
            await pilot.press("f3")
            await until(pilot, lambda step=step: wizard.step == step)
        await pilot.press("f2")
        await until(pilot, lambda: wizard.step == STEPS[-2])

    play(app_for(project(tmp_path / "p")), script)


def test_looking_through_every_step_changes_nothing(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        for step in STEPS:
            await wizard.go_to(step)
            await pilot.pause(0.3)
        for name in ("ema", "v2", "huber_schedule", "save_precision"):
            await focus(app, pilot, name)
        await pilot.pause(0.3)
        assert not wizard.draft.is_changed

    play(ready(project(tmp_path / "p")), script)


def test_a_step_with_a_mistake_is_marked_and_the_mistake_stands_beside_its_field(
    tmp_path: Path,
) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await checked(app, pilot)
        await shown(app, pilot, "1 Model !")
        await shown(app, pilot, "no base model is named")
        await focus(app, pilot, "learning_rate")
        await pilot.press("end", *["backspace"] * 8, *"fast")
        await shown(app, pilot, "learning_rate must be a number|a number, 0 or more")
        await shown(app, pilot, "5 Training !")

    play(app_for(project(tmp_path / "p")), script)


def test_a_file_that_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await type_in(pilot, "other.safetensors")
        # A long path before it wraps the line.
        await shown(app, pilot, r"this\s+is\s+no\s+Stable")
        assert "Stable Diffusion 1.x or 2.x in one" not in text_of(app)
        await shown(app, pilot, "1 Model !")
        await pilot.press("f5")
        assert any(name.startswith("pretrained") for name in wizard_of(app).checked.fields)

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.presses("WizardScreen.ctrl+z", "WizardScreen.ctrl+y")
def test_a_preset_is_chosen_and_undone_and_done_again(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        for _ in range(4):
            await pilot.press("f3")
        await until(pilot, lambda: wizard.step == "training")
        await pilot.press("enter", "down", "enter")
        await until(pilot, lambda: stated(wizard.draft, "preset").value == "sd15-6gb")
        await shown(app, pilot, "p mixed_precision +bf16")
        await pilot.press("ctrl+z")
        await until(pilot, lambda: stated(wizard.draft, "preset").value == "sd15-12gb")
        await shown(app, pilot, "Undone: preset")
        await pilot.press("ctrl+y")
        await until(pilot, lambda: stated(wizard.draft, "preset").value == "sd15-6gb")

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.presses("SettingHelp.escape", "Shell.f1")
def test_a_folded_group_gets_its_fields_when_it_is_opened(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        field = await focus(app, pilot, "min_snr_gamma")
        await type_in(pilot, "5")
        await until(pilot, lambda: stated(wizard_of(app).draft, "min_snr_gamma").value == 5)
        await pilot.press("f1")
        await shown(app, pilot, "--min_snr_gamma")
        await shown(app, pilot, "set by +the config")
        await pilot.press("escape")
        await until(pilot, lambda: app.focused in field.query("*"))

    play(app_for(project(tmp_path / "p")), script)


def test_f1_away_from_fields_explains_the_step(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3")
        await shown(app, pilot, "▶ images")
        await pilot.press("f1")
        await shown(app, pilot, "Help: the images")

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.presses("WizardScreen.ctrl+o")
def test_jump_mode_gives_the_keys_to_what_a_letter_stands_on(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await checked(app, pilot)
        before = app.focused
        await pilot.press("ctrl+o")
        await shown(app, pilot, r"(?s) a\b.* s  Choose")
        await pilot.press("s")
        await until(pilot, lambda: app.screen is wizard_of(app) and app.focused is not before)
        await pilot.press("ctrl+o", "a")
        await until(pilot, lambda: app.focused is before)
        await pilot.press("ctrl+o", "escape")
        await until(pilot, lambda: app.screen is wizard_of(app))

    play(app_for(project(tmp_path / "p")), script)


def test_the_palette_has_the_keys_of_the_screen_and_of_the_step(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3", "f3")
        await until(pilot, lambda: wizard_of(app).step == "words")
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert {"Save files", "Jump", "Undo", "Edit caption", "Caption by model"} <= set(titles)

    play(app_for(project(tmp_path / "p")), script)


def test_without_unicode_every_sign_is_ascii(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        for _ in STEPS:
            await pilot.pause(0.3)
            assert not {sign for sign in text_of(app) if not sign.isascii()}
            await pilot.press("f3")

    play(app_for(project(tmp_path / "p"), ascii_only=True, graphics="none"), script)
