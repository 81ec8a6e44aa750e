"""Typing faster than the wizard checks: what stands in a field is never put out of order."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Checkbox, Input

from sdft.config.write import toml_value
from sdft.tui.draft import CONFIG
from sdft.tui.draft_values import stated
from sdft.tui.screens.wizard import WizardScreen
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import until
from tests.tui.wizarding import (
    app_for,
    checked,
    focus,
    play,
    project,
    ready,
    shown,
    toml,
    type_in,
    wizard_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")

MODEL = "pretrained_model_name_or_path"


def value_of(wizard: WizardScreen, name: str = MODEL) -> object:
    return stated(wizard.draft, name).value


def draw(wizard: WizardScreen) -> None:
    """Draw the draft now, as when a check comes in between two messages."""
    wizard.pane.show(wizard.draft, wizard.checked)


async def typed(app: WizardApp, pilot: Pilot[None], text: str, name: str = MODEL) -> Input:
    """Type into a field and wait until the draft has it and the checks have come in."""
    field = await focus(app, pilot, name)
    await type_in(pilot, text)
    await until(pilot, lambda: str(value_of(wizard_of(app), name)) == text)
    await checked(app, pilot)
    return field.query_one(Input)


def test_a_check_that_comes_in_between_two_letters_leaves_them_in_order(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        editor = await typed(app, pilot, "othe")
        # The letter stands in the field; that it does is still to be told.
        editor.insert_text_at_cursor("r")
        draw(wizard)
        assert (editor.value, editor.cursor_position) == ("other", 5)
        await type_in(pilot, ".safetensors")
        assert editor.value == "other.safetensors"
        await until(pilot, lambda: value_of(wizard) == "other.safetensors")

    play(app_for(project(tmp_path / "p")), script)


def test_many_keys_at_once_among_checks_come_out_as_typed(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        editor = await typed(app, pilot, "o")
        for letter in "thermodynamics":
            app.post_message(Key(letter, letter))
            wizard.post_message(wizard.WasChecked(wizard.draft, wizard.checked))
        await until(pilot, lambda: value_of(wizard) == "othermodynamics")
        assert (editor.value, editor.cursor_position) == ("othermodynamics", 15)

    play(app_for(project(tmp_path / "p")), script)


def test_the_last_letter_counts_when_the_field_is_left_at_once(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        editor = await typed(app, pilot, "othe")
        editor.insert_text_at_cursor("r")
        wizard.set_focus(None)
        draw(wizard)
        await until(pilot, lambda: value_of(wizard) == "other")
        assert editor.value == "other"

    play(app_for(project(tmp_path / "p")), script)


def test_a_letter_that_is_taken_back_at_once_is_not_in_the_draft(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        editor = await typed(app, pilot, "other")
        app.post_message(Key("x", "x"))
        app.post_message(Key("backspace", None))
        await pilot.pause()
        await checked(app, pilot)
        assert (editor.value, value_of(wizard)) == ("other", "other")

    play(app_for(project(tmp_path / "p")), script)


def test_a_number_is_not_rounded_while_it_is_typed(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        field = await focus(app, pilot, "min_snr_gamma")
        for letter in "4.123456789":
            await type_in(pilot, letter)
            await pilot.pause()
            draw(wizard)
        assert field.query_one(Input).value == "4.123456789"
        await until(pilot, lambda: value_of(wizard, "min_snr_gamma") == 4.123456789)

    play(app_for(project(tmp_path / "p")), script)


def test_undo_takes_back_a_letter_that_was_not_told_yet(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        editor = await typed(app, pilot, "othe")
        editor.insert_text_at_cursor("r")
        wizard.action_undo()
        assert editor.value == ""
        await pilot.pause(0.1)
        assert not editor.value and not value_of(wizard)
        await pilot.press("ctrl+y")
        await until(pilot, lambda: value_of(wizard) == "other")
        assert (editor.value, editor.cursor_position) == ("other", 5)
        await type_in(pilot, "s")
        await until(pilot, lambda: value_of(wizard) == "others")

    play(app_for(project(tmp_path / "p")), script)


def test_a_value_changed_elsewhere_is_drawn_and_the_cursor_keeps_its_place(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        editor = await typed(app, pilot, "other")
        editor.cursor_position = 2
        changed = wizard.draft.with_value(CONFIG, (MODEL,), toml_value("another"))
        wizard.edit(changed, MODEL)
        assert (editor.value, editor.cursor_position) == ("another", 2)
        editor.cursor_position = 7
        longer = wizard.draft.with_value(CONFIG, (MODEL,), toml_value("another one"))
        wizard.edit(longer, MODEL)
        assert (editor.value, editor.cursor_position) == ("another one", 11)

    play(app_for(project(tmp_path / "p")), script)


def test_saving_at_once_writes_the_last_letter(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        editor = await typed(app, pilot, "othe")
        editor.insert_text_at_cursor("r")
        wizard.action_save()
        await shown(app, pilot, "saved")
        await until(pilot, lambda: not wizard.draft.is_changed)
        assert toml(wizard.draft.config.path)[MODEL] == "other"

    play(app_for(project(tmp_path / "p")), script)


def test_a_tick_is_not_taken_back_by_a_check(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        box = (await focus(app, pilot, "ema")).query_one(Checkbox)
        before = box.value
        box.toggle()
        draw(wizard)
        assert box.value is not before
        await until(pilot, lambda: value_of(wizard, "ema") is not before)
        box.toggle()
        box.toggle()
        await pilot.pause(0.1)
        assert (box.value, value_of(wizard, "ema")) == (not before, not before)

    play(ready(project(tmp_path / "p")), script)
