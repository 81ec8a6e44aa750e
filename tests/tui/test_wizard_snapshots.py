"""The wizard as it looks, at two sizes and in two languages, without what takes a command.

UPDATE_GOLDENS=1 python -m pytest tests/tui/test_wizard_snapshots.py writes them anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.screen import Screen

from sdft.config.document import parsed
from sdft.errors import ConfigError
from sdft.tui.panes.working import WorkingPane
from sdft.tui.screens.caption import CaptionScreen
from sdft.tui.screens.help import HelpScreen
from sdft.tui.screens.label import LabelScreen
from sdft.tui.screens.mend import MendScreen
from sdft.tui.screens.setting_help import SettingHelp
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import text_of, until
from tests.tui.wizarding import app_for, checked, focus, play, project, ready, wizard_of

pytestmark = pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")

GOLDENS = Path(__file__).parent.parent / "golden" / "tui"
STEPS = ("model", "images", "training", "review")


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_the_steps_look_as_before(tmp_path: Path, size: tuple[int, int], language: str) -> None:
    folder = project(tmp_path / "cats")
    config = "# Mine\ndataset_config = 'dataset.toml'\noutput_dir = 'out'\nlearning_rate = -1\n"
    (folder / "config.toml").write_text(config, encoding="utf-8")
    shown: dict[str, str] = {}

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await checked(app, pilot)
        wizard = wizard_of(app)
        for step in STEPS:
            await wizard.go_to(step)
            if step == "images":
                await until(pilot, lambda: "▶ images" in text_of(app))
            # The row of keys is made anew for each step.
            await until(pilot, lambda: "f2 " in text_of(app).splitlines()[-1])
            await until(pilot, wizard.pane.is_filled.is_set)
            await pilot.pause(0.2)
            # How many settings there are below moves the scrollbar and is no part of the look.
            shown[step] = re.sub("[▁▂▃▄▅▆▇]", " ", text_of(app)).replace(" \n", "\n") + "\n"

    play(app_for(folder, language=language, graphics="none"), script, size=size)
    compare(shown, size, language)


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_what_commands_found_looks_as_before(
    tmp_path: Path, size: tuple[int, int], language: str
) -> None:
    shown: dict[str, str] = {}

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        wizard = wizard_of(app)
        for step in ("words", "buckets"):
            await wizard.go_to(step)
            (pane,) = [one for one in app.screen.query(WorkingPane) if one.id == f"step-{step}"]
            await until(pilot, lambda pane=pane: pane.done is not None)
            await until(pilot, lambda: "f2 " in text_of(app).splitlines()[-1])
            await until(pilot, pane.is_filled.is_set)
            # The help of the field with the keys comes a moment later.
            await until(pilot, lambda: bool(text_of(app).splitlines()[-2].strip()))
            await pilot.pause(0.2)
            shown[step] = re.sub("[▁▂▃▄▅▆▇]", " ", text_of(app)).replace(" \n", "\n") + "\n"

    app = ready(project(tmp_path / "cats"), language=language, graphics="none")
    play(app, script, size=size)
    compare(shown, size, language)


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_what_lies_over_the_steps_looks_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], language: str
) -> None:
    folder = project(tmp_path / "cats")
    (folder / "broken.toml").write_text("[general]\nenable_bucket = yes\n", encoding="utf-8")
    # Paths are shown as they were given, so that they are the same everywhere.
    monkeypatch.chdir(folder)
    image = Path("images/0.png")
    shown: dict[str, str] = {}

    async def script(app: WizardApp, pilot: Pilot[None]) -> None:
        await checked(app, pilot)
        wizard = wizard_of(app)
        field = await focus(app, pilot, "learning_rate")
        screens: dict[str, tuple[Screen[Any], str]] = {
            "setting-help": (SettingHelp(field), "--learning_rate"),
            "help": (HelpScreen("step-images"), wizard.words("part.step-images")),
            "caption": (CaptionScreen(image, image.with_suffix(".txt"), graphics="none"), "a cat"),
            "label": (LabelScreen("tag", ["images"], ".txt", folder), "sdft tag"),
            "mend": (MendScreen(Path("broken.toml"), mistake()), "enable_bucket = yes"),
        }
        for name, (screen, words) in screens.items():
            app.push_screen(screen)
            await until(pilot, lambda screen=screen: app.screen is screen and screen.is_mounted)
            await until(pilot, lambda words=words: words in text_of(app))
            await pilot.pause(0.2)
            shown[name] = re.sub("[▁▂▃▄▅▆▇]", " ", text_of(app)).replace(" \n", "\n") + "\n"
            app.pop_screen()
            await until(pilot, lambda: app.screen is wizard)

    play(app_for(folder, language=language, graphics="none"), script, size=size)
    compare(shown, size, language)


def mistake() -> ConfigError:
    """Return what is said of a file that is no TOML, under a path that is the same everywhere."""
    with pytest.raises(ConfigError) as raised:
        parsed(Path("broken.toml").read_text("utf-8"), "broken.toml", is_json=False)
    return raised.value


def compare(shown: dict[str, str], size: tuple[int, int], language: str) -> None:
    for step, text in shown.items():
        golden = GOLDENS / f"wizard-{step}-{size[0]}x{size[1]}-{language}.txt"
        if "UPDATE_GOLDENS" in os.environ:
            golden.write_text(text, encoding="utf-8")
        assert text == golden.read_text(encoding="utf-8"), golden.name
