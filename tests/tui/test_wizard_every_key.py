"""The keys of the wizard that no other test presses, and that none is forgotten."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from textual.binding import Binding
from textual.dom import DOMNode
from textual.pilot import Pilot
from textual.widgets import Input, Tree

import sdft.tui.panes
import sdft.tui.screens
import sdft.tui.widgets
from sdft.events import ignore
from sdft.jobs.demo import prepare_demo
from sdft.rundir import RunDir
from sdft.tui.panes.working import WorkingPane
from sdft.tui.screens.ask_run import AskRun
from sdft.tui.screens.help import HelpScreen
from sdft.tui.screens.label import LabelScreen
from sdft.tui.screens.mend import MendScreen
from sdft.tui.screens.recent import AskRecent
from sdft.tui.screens.run import RunScreen
from sdft.tui.screens.setting_help import SettingHelp
from sdft.tui.shell import Shell
from sdft.tui.starting import Started
from sdft.tui.widgets.folder_tree import FolderTree
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import until
from tests.tui.wizarding import app_for, focus, play, project, ready, shown, type_in, wizard_of

pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")

HERE = Path(__file__).parent
TESTS = ("test_wizard_keys.py", "test_wizard_every_key.py", "test_wizard_tmux.py")


def declared() -> set[str]:
    """Return each key that a class of the wizard declares."""
    keys = {"f1", "q", "ctrl+q", Shell.COMMAND_PALETTE_BINDING}
    for package in (sdft.tui.panes, sdft.tui.screens, sdft.tui.widgets):
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            for one in vars(import_module(module.name)).values():
                own = isinstance(one, type) and one.__module__ == module.name
                if own and issubclass(one, DOMNode) and not is_of_the_dashboard(one):
                    bindings = [
                        b for b in one.__dict__.get("BINDINGS", ()) if isinstance(b, Binding)
                    ]
                    keys |= {key for b in bindings for key in b.key.split(",")}
    return keys


def is_of_the_dashboard(kind: type) -> bool:
    """Tell whether tests/tui/test_watch_keys.py presses its keys."""
    return kind.__module__.rpartition(".")[2] in ("watch", "steering", "ask")


def pressed() -> set[str]:
    """Return every text that the tests of the wizard hold, keys among them."""
    found: set[str] = set()
    for name in TESTS:
        tree = ast.parse((HERE / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("press", "keys"):
                found |= {
                    part.value
                    for argument in node.args
                    for part in ast.walk(argument)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                }
    return found


def test_every_key_is_pressed_by_some_test() -> None:
    assert len(declared()) > 20
    assert declared() - pressed() == set()


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


def test_f4_opens_the_dialog_of_model_files(tmp_path: Path) -> None:
    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await pilot.press("f4")
        await until(pilot, lambda: type(app.screen).__name__ == "FileOpen")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is wizard_of(app))

    play(app_for(project(tmp_path / "p")), script)


@pytest.mark.parametrize(("key", "command"), [("f6", "caption"), ("f7", "tag")])
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


@pytest.mark.parametrize("step", ["words", "buckets", "review"])
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
    prepare_demo(tmp_path / "demo", emit=ignore)

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await wizard_of(app).go_to("review")
        await shown(app, pilot, r"in 8\s+epochs")
        await shown(app, pilot, "latents")
        await shown(app, pilot, r"memory +\d")

    app = app_for(tmp_path / "demo", tmp_path / "demo" / "config.toml")
    play(app, script, size=(160, 50))


@pytest.mark.parametrize("key", ["escape", "f1", "q", "enter"])
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

    import asyncio

    asyncio.run(whole())
    assert broken.read_text(encoding="utf-8") == "learning_rate = = 3\n"


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
