"""Each step of the wizard and each of its keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from sdft.tui.draft_values import image_dirs, stated
from sdft.tui.panes.buckets import shaded
from sdft.tui.screens.mend import MendScreen
from sdft.tui.screens.wizard import STEPS, WizardScreen
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
    toml,
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


@pytest.mark.presses("FolderTree.enter", "Chosen.delete")
def test_a_folder_is_counted_under_the_cursor_and_used_with_enter(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3")
        await shown(app, pilot, "▶ images")
        await pilot.press("down")
        await shown(app, pilot, r"captions \(\.txt\) +4  100%")
        await shown(app, pilot, r"other files \(\.md\) +1")
        await pilot.press("enter")
        await until(pilot, lambda: image_dirs(wizard_of(app).draft) == ["images"])
        await shown(app, pilot, "images  ✓")
        await pilot.press("enter")
        await shown(app, pilot, "This folder is in the list")
        app.screen.query_one("#chosen").focus()
        await pilot.press("delete")
        await until(pilot, lambda: image_dirs(wizard_of(app).draft) == [])

    play(app_for(project(tmp_path / "p")), script)


def test_a_typed_folder_is_used_and_its_captions_decide_the_extension(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", captions=False)
    other = tmp_path / "other [red] 猫 🐈"
    (folder / "images").rename(other)
    for number in range(4):
        (other / f"{number}.caption").write_text("a cat", encoding="utf-8")

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3")
        await until(pilot, lambda: app.screen.query("#folder-path"))
        app.screen.query_one("#folder-path", Input).value = str(other)
        app.screen.query_one("#folder-path", Input).focus()
        await pilot.press("enter")
        await until(pilot, lambda: image_dirs(wizard_of(app).draft) == [str(other)])
        assert stated(wizard_of(app).draft, "caption_extension").value == ".caption"
        await shown(app, pilot, r"other \[red\]")

    play(app_for(folder), script)


@pytest.mark.parametrize("kind", ["missing", "closed", "long"])
def test_a_folder_that_cannot_be_looked_into_is_said_so(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path / "p")
    typed = {"missing": "nowhere", "closed": "images", "long": "x" * 300}[kind]
    if kind == "closed":
        import os

        real = os.scandir

        def scandir(path: object = ".") -> object:
            if str(path).endswith("images"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)  # type: ignore[call-overload]

        monkeypatch.setattr("sdft.tui.folder_look.os.scandir", scandir)

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3")
        await until(pilot, lambda: app.screen.query("#folder-path"))
        app.screen.query_one("#folder-path", Input).value = typed
        app.screen.query_one("#folder-path", Input).focus()
        await pilot.press("enter")
        await shown(app, pilot, "No such file|Permission denied|too long")
        assert image_dirs(wizard_of(app).draft) == []

    play(app_for(folder), script)


@pytest.mark.presses("WordsPane.f4", "CaptionScreen.ctrl+s")
def test_the_words_are_shown_and_a_caption_is_edited_beside_its_picture(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3", "f3")
        await shown(app, pilot, "4 uses   0 without words")
        app.screen.query_one("#words-rows").focus()
        await pilot.press("f4")
        await shown(app, pilot, r"a cat, number \d\s")
        await until(pilot, lambda: app.screen.query("#caption-picture > *"))
        await pilot.press("end", *" sleeping".replace(" ", "~").split("~")[1])
        await pilot.press("ctrl+s")
        await shown(app, pilot, "sleeping")
        texts = [path.read_text("utf-8") for path in (folder / "images").glob("*.txt")]
        assert sum("sleeping" in text for text in texts) == 1

    play(ready(folder), script)


@pytest.mark.presses("WordsPane.f7", "LabelScreen.escape")
def test_captions_by_a_model_show_the_command_and_why_it_failed(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3", "f3", "f7")
        await shown(app, pilot, "sdft tag --caption_extension=.txt -- ")
        await type_in(pilot, "no-model-here")
        await shown(app, pilot, "--model=no-model-here")
        await pilot.press("enter")
        await shown(app, pilot, "Stopped")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is wizard_of(app))

    play(ready(folder), script)


def test_buckets_show_every_images_fate_and_the_crop(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3", "f3", "f3")
        await shown(app, pilot, "4 used   0 not used")
        await shown(app, pilot, r"\d+ x \d+ -> \d+ x \d+, cut to")
        await until(pilot, lambda: app.screen.query("#crop-picture > *"))
        rows = app.screen.query_one("#bucket-rows", OptionList)
        assert rows.option_count > 1
        before = text_of(app)
        rows.focus()
        await pilot.press("down")
        await until(pilot, lambda: text_of(app) != before)

    play(ready(project(tmp_path / "p")), script)


def test_the_cut_off_part_is_dark() -> None:
    from PIL import Image

    white = Image.new("RGB", (100, 50), "white")
    drawn = shaded(white, (200, 100), (50, 0, 150, 100))
    assert drawn.getpixel((10, 25)) != (255, 255, 255)
    assert drawn.getpixel((50, 25)) == (255, 255, 255)
    assert drawn.getpixel((90, 25)) != (255, 255, 255)


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


def test_without_unicode_every_sign_is_ascii(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        for _ in STEPS:
            await pilot.pause(0.3)
            assert not {sign for sign in text_of(app) if not sign.isascii()}
            await pilot.press("f3")

    play(app_for(project(tmp_path / "p"), ascii_only=True, graphics="none"), script)
