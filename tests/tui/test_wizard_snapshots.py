"""The wizard as it looks, at two sizes and in two languages, without what takes a command.

UPDATE_GOLDENS=1 python -m pytest tests/tui/test_wizard_snapshots.py writes them anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from sdft.tui.panes.working import WorkingPane
from sdft.tui.wizard_app import WizardApp
from tests.tui.piloting import text_of, until
from tests.tui.wizarding import app_for, checked, play, project, ready, wizard_of

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
            await pilot.pause(0.3)
            lines = re.sub("[▁▂▃▄▅▆▇]", " ", text_of(app)).replace(" \n", "\n").splitlines()
            # The help of the field with the keys comes a moment later.
            lines[-2] = ""
            shown[step] = "\n".join(lines) + "\n"

    app = ready(project(tmp_path / "cats"), language=language, graphics="none")
    play(app, script, size=size)
    compare(shown, size, language)


def compare(shown: dict[str, str], size: tuple[int, int], language: str) -> None:
    for step, text in shown.items():
        golden = GOLDENS / f"wizard-{step}-{size[0]}x{size[1]}-{language}.txt"
        if "UPDATE_GOLDENS" in os.environ:
            golden.write_text(text, encoding="utf-8")
        assert text == golden.read_text(encoding="utf-8"), golden.name
