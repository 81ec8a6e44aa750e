"""The wizard's steps about images: their folders, their words, their buckets."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from sdft.tui.draft_values import image_dirs, stated
from sdft.tui.panes.buckets import shaded
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import text_of, until
from tests.tui.wizarding import app_for, play, project, ready, shown, type_in, wizard_of

pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")


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
