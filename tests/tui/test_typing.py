"""Typing faster than the wizard checks: what stands in a field is never put out of order."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Checkbox, Input, TextArea

from sdft.config.write import toml_value
from sdft.tui.draft import CONFIG
from sdft.tui.draft_values import image_dirs, stated
from sdft.tui.panes.images import Chosen
from sdft.tui.screens.caption import CaptionScreen
from sdft.tui.screens.wizard import WizardScreen
from sdft.tui.widgets.row_list import RowList, followed
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
        assert not editor.value
        assert not value_of(wizard)
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


def test_a_caption_that_is_read_slowly_loses_neither_its_words_nor_the_typed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path / "p")
    file = folder / "images" / "0.txt"
    monkeypatch.setattr(CaptionScreen, "_read", lambda screen: None)

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        screen = CaptionScreen(folder / "images" / "0.png", file, graphics="none")
        app.push_screen(screen)
        await until(pilot, lambda: screen.is_mounted and app.screen is screen)
        await type_in(pilot, "a dog, ")
        await pilot.press("ctrl+s")
        assert file.read_text("utf-8") == "a cat, number 0"
        screen.post_message(screen.Read(None, "a cat, number 0", ""))
        await pilot.pause()
        await type_in(pilot, "and ")
        assert screen.query_one(TextArea).text == "a dog, and a cat, number 0"
        await pilot.press("ctrl+s")
        assert file.read_text("utf-8").strip() == "a dog, and a cat, number 0"

    play(app_for(folder), script)


def test_a_list_that_comes_in_anew_keeps_the_row_under_the_cursor(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3", "f3")
        await shown(app, pilot, "4 uses   0 without words")
        rows = app.screen.query_one("#words-rows", RowList)
        rows.focus()
        await pilot.press("down", "down", "f4")
        screen = app.screen
        await until(pilot, lambda: "a cat" in screen.query_one(TextArea).text)
        await type_in(pilot, "new")
        await pilot.press("ctrl+s")
        await shown(app, pilot, r"newa cat, number \d\s")
        assert rows.highlighted == 2

    play(ready(project(tmp_path / "p")), script)


def test_a_row_is_followed_by_its_key() -> None:
    assert followed(1, "abc", "xabc") == 2
    assert followed(1, "abc", "ac") == 1
    assert followed(2, "abc", "ab") == 1
    assert followed(2, "abab", "babab") == 1
    assert followed(2, "abc", "xyz") == 0
    assert followed(0, "", "abc") == 0


def test_delete_twice_at_once_takes_out_one_folder(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        await pilot.press("f3")
        chosen = app.screen.query_one("#chosen", Chosen)
        await until(pilot, lambda: chosen.option_count == 2)
        chosen.focus()
        await pilot.press("down")
        for _ in range(2):
            chosen.post_message(chosen.TakeOut(1))
        await until(pilot, lambda: chosen.option_count == 1)
        await pilot.pause(0.1)
        assert image_dirs(wizard.draft) == ["images"]

    folder = project(tmp_path / "p")
    ready(folder)
    with (folder / "dataset.toml").open("a", encoding="utf-8") as file:
        file.write("\n[[datasets.subsets]]\nimage_dir = 'more'\n")
    play(app_for(folder), script)
