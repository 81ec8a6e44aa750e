"""The keys of the wizard that no other test presses, and that no key is forgotten."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from textual.app import App
from textual.binding import Binding, BindingType
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, Tree

from sdft.rundir import RunDir
from sdft.tui.panes.working import WorkingPane
from sdft.tui.screens.ask import AskYes
from sdft.tui.screens.ask_run import AskRun
from sdft.tui.screens.caption import CaptionScreen
from sdft.tui.screens.help import HelpScreen
from sdft.tui.screens.label import LabelScreen
from sdft.tui.screens.mend import MendScreen
from sdft.tui.screens.recent import AskRecent
from sdft.tui.screens.run import RunScreen
from sdft.tui.screens.setting_help import SettingHelp
from sdft.tui.starting import Started
from sdft.tui.widgets.folder_tree import FolderTree
from sdft.tui.wizard_app import WizardApp
from tests.toy_project import prepare_toy
from tests.tui.piloting import until
from tests.tui.pressing import claimed_by_tests, declared_keys, watched
from tests.tui.wizarding import app_for, focus, play, project, ready, shown, type_in, wizard_of

pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")


def test_every_key_is_pressed_by_some_test() -> None:
    """Each class with each of its keys: conftest.py fails a test that does not press its own."""
    declared = declared_keys()
    assert len(declared) > 80
    assert declared == claimed_by_tests(Path(__file__).parent)


class Opened(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.pop_screen")]


class Below(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,x", "app.pop_screen")]


def test_a_key_counts_only_for_the_screen_whose_action_ran() -> None:
    async def whole() -> None:
        app = App[None]()
        async with app.run_test() as pilot:
            app.push_screen(Below())
            app.push_screen(Opened())
            await pilot.pause()
            await pilot.press("x", "escape")
            assert isinstance(app.screen, Below)

    with watched() as ran:
        asyncio.run(whole())
    # Nobody took the x, and the Escape of the screen below is another.
    assert ran == {"Opened.escape"}


@pytest.mark.presses(
    "FolderTree.space", "FolderTree.right", "FolderTree.left", "FolderTree.backspace"
)
def test_the_tree_opens_closes_and_goes_up(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    (folder / "images" / "more").mkdir()

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3")
        await shown(app, pilot, "▶ images")
        tree = app.screen.query_one(FolderTree)
        tree.focus()
        await pilot.press("down")
        node = tree.cursor_node
        assert node is not None
        await pilot.press("space")
        await until(pilot, lambda: node.is_expanded)
        await pilot.press("space")
        await until(pilot, lambda: not node.is_expanded)
        await pilot.press("right")
        await until(pilot, lambda: node.is_expanded)
        await pilot.press("left")
        await until(pilot, lambda: not node.is_expanded)
        await pilot.press("left")
        await until(pilot, lambda: tree.cursor_node is tree.root)
        await pilot.press("backspace")
        await until(pilot, lambda: Path(tree.path) == folder.parent)
        assert isinstance(tree, Tree)

    play(app_for(folder), script)


@pytest.mark.presses("Chosen.minus")
def test_minus_takes_a_folder_out(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f3")
        await shown(app, pilot, "▶ images")
        await pilot.press("down", "enter")
        await shown(app, pilot, "images  ✓")
        assert app.screen.query_one(FolderTree).chosen
        app.screen.query_one("#chosen").focus()
        await pilot.press("minus")
        await until(pilot, lambda: not app.screen.query_one(FolderTree).chosen)

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.presses("ModelPane.f4")
def test_f4_opens_the_dialog_of_model_files(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f4")
        await until(pilot, lambda: type(app.screen).__name__ == "FileOpen")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is wizard_of(app))

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.parametrize(
    ("key", "command"),
    [
        pytest.param("f6", "caption", marks=pytest.mark.presses("WordsPane.f6")),
        pytest.param("f7", "tag", marks=pytest.mark.presses("WordsPane.f7")),
    ],
)
def test_captions_and_tags_are_asked_for_by_a_key(tmp_path: Path, key: str, command: str) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await with_images(app, pilot)
        await pilot.press("f3")
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, LabelScreen))
        await shown(app, pilot, f"sdft {command}")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is wizard_of(app))

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=pytest.mark.presses(f"{step.title()}Pane.f8"))
        for step in ("words", "buckets", "review")
    ],
)
def test_f8_asks_once_more(tmp_path: Path, step: str) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await wizard_of(app).go_to(step)
        (pane,) = [one for one in app.screen.query(WorkingPane) if one.id == f"step-{step}"]
        await until(pilot, lambda: pane.done is not None)
        first = pane.done
        pane.focus()
        await pilot.press("f8")
        await until(pilot, lambda: pane.done is not first)

    play(ready(project(tmp_path / "p")), script)


def test_the_review_shows_what_the_run_will_take(tmp_path: Path) -> None:
    prepare_toy(tmp_path / "demo")

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await wizard_of(app).go_to("review")
        await shown(app, pilot, r"in 8\s+epochs")
        await shown(app, pilot, "latents")
        await shown(app, pilot, r"memory +\d")

    app = app_for(tmp_path / "demo", tmp_path / "demo" / "config.toml")
    play(app, script, size=(160, 50))


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, marks=pytest.mark.presses(f"HelpScreen.{key}", f"SettingHelp.{key}"))
        for key in ("escape", "f1", "q", "enter")
    ],
)
def test_help_closes_by_each_of_its_keys(tmp_path: Path, key: str) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        for opened in (HelpScreen, SettingHelp):
            if opened is SettingHelp:
                await focus(app, pilot, "learning_rate")
            else:
                await pilot.press("f3")
                await until(pilot, lambda: app.screen.query(FolderTree))
                app.screen.query_one(FolderTree).focus()
            await pilot.press("f1")
            await until(pilot, lambda opened=opened: isinstance(app.screen, opened))
            await pilot.press(key)
            await until(pilot, lambda: app.screen is wizard_of(app))

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.presses("Shell.ctrl+p", "Shell.q")
def test_ctrl_p_opens_the_palette_and_q_leaves(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+p")
        await until(pilot, lambda: app.screen is not wizard_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is wizard_of(app))
        await pilot.press("f3")
        await until(pilot, lambda: app.screen.query(FolderTree))
        app.screen.query_one(FolderTree).focus()
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running or app.return_code is not None)

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.presses("MendScreen.ctrl+q")
def test_a_broken_file_can_be_left_as_it_is(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    broken = folder / "config.toml"
    broken.write_text("learning_rate = = 3\n", encoding="utf-8")

    async def whole() -> None:
        app = app_for(folder, broken)
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: isinstance(app.screen, MendScreen))
            await pilot.press("ctrl+q")
            await until(pilot, lambda: not app.is_running or app.return_code is not None)

    asyncio.run(whole())
    assert broken.read_text(encoding="utf-8") == "learning_rate = = 3\n"


@pytest.mark.presses("CaptionScreen.escape")
def test_escape_leaves_a_caption_as_it_was(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    image, caption = folder / "images" / "0.png", folder / "images" / "0.txt"
    answers: list[bool | None] = []

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        screen = CaptionScreen(image, caption, graphics="none")
        app.push_screen(screen, answers.append)
        await shown(app, pilot, "a cat, number 0")
        await pilot.press("end", *"!!")
        await shown(app, pilot, "number 0!!")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is wizard_of(app))

    play(app_for(folder), script)
    assert answers == [False]
    assert caption.read_text(encoding="utf-8") == "a cat, number 0"


@pytest.mark.presses("Fold.enter")
def test_enter_opens_a_group_and_closes_it_again(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await wizard_of(app).go_to("training")
        await until(pilot, lambda: app.screen.query("#group-validation"))
        app.screen.query_one("#group-validation").focus()
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.query("#setting-validation_dir"))
        await pilot.press("enter")
        await until(pilot, lambda: not app.screen.query("#setting-validation_dir"))

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.presses("AskYes.left", "AskYes.right")
def test_arrows_go_from_yes_to_no_and_back(tmp_path: Path) -> None:
    answers: list[bool | None] = []

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        app.push_screen(AskYes("Sure?"), answers.append)
        await shown(app, pilot, "Sure")
        assert app.focused is not None
        first = app.focused
        await pilot.press("right")
        await until(pilot, lambda: app.focused is not first)
        await pilot.press("left")
        await until(pilot, lambda: app.focused is first)
        await pilot.press("right", "enter")
        await until(pilot, lambda: app.screen is wizard_of(app))

    play(app_for(project(tmp_path / "p")), script)
    assert answers == [False]


@pytest.mark.presses("AskRun.escape", "AskRecent.escape")
def test_questions_are_left_with_escape(tmp_path: Path) -> None:
    answers: list[object] = []

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        for question in (AskRun(is_finished=False), AskRecent([tmp_path / "old.toml"])):
            app.push_screen(question, answers.append)
            await until(pilot, lambda question=question: app.screen is question)
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is wizard_of(app))

    play(app_for(project(tmp_path / "p")), script)
    assert answers == [None, None]


@pytest.mark.presses("RunScreen.escape")
def test_escape_leaves_the_dashboard_and_not_the_run(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    log = folder / "log.txt"
    log.write_text("", encoding="utf-8")
    started = Started(
        run=RunDir.of(folder, "cats"), process=process, log=log, line="sdft train config.toml"
    )

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        app.push_screen(RunScreen(started, graphics="none"))
        await until(pilot, lambda: isinstance(app.screen, RunScreen))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is wizard_of(app))

    try:
        play(app_for(folder), script)
        assert process.poll() is None, "the training goes on"
    finally:
        process.kill()
        process.wait()


async def with_images(app: WizardApp, pilot: Pilot[None]) -> None:
    """Go to the step of the images, and choose the folder unless it is chosen."""
    await pilot.press("f3")
    await until(pilot, lambda: app.screen.query("#folder-path"))
    if "images" not in str(app.screen.query_one(FolderTree).chosen):
        app.screen.query_one("#folder-path", Input).focus()
        await type_in(pilot, "images")
        await pilot.press("enter")
        await shown(app, pilot, "images  ✓")
