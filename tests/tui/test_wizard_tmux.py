"""The whole way in a real terminal, by keys only: a folder of images to a finished toy run.

    KEEP_SCREENS=folder python -m pytest -m long tests/tui/test_wizard_tmux.py

keeps what the terminal showed at each step.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tui.terminal import ROOT, Terminal, python

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]

KEY_PAUSE_S = 0.4


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(columns=120, lines=40)
    yield terminal
    terminal.close()


class Walk:
    """Presses keys and keeps the screens."""

    def __init__(self, terminal: Terminal, folder: Path) -> None:
        self.terminal = terminal
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._number = 0

    def see(self, pattern: str, name: str) -> str:
        screen = self.terminal.wait_for(pattern)
        self._number += 1
        (self.folder / f"{self._number:02}-{name}.txt").write_text(screen, encoding="utf-8")
        return screen

    def press(self, *keys: str) -> None:
        """Press keys at a person's pace: those that move the focus take effect after letters."""
        for key in keys:
            time.sleep(KEY_PAUSE_S)
            self.terminal.press(key)
        time.sleep(KEY_PAUSE_S)

    def write(self, text: str) -> None:
        self.terminal._tmux("send-keys", "-t", "w", "-l", text)


def start(terminal: Terminal, folder: Path, state: Path, *words: str, setting: str = "") -> None:
    line = shlex.join(python("-P", "-m", "sdft", "wizard", "--graphics", "none", *words))
    environment = (
        f"env -u COLUMNS -u LINES SDFT_LANG=en XDG_STATE_HOME={shlex.quote(str(state))} {setting}"
    )
    environment += f" PYTHONPATH={shlex.quote(str(ROOT))}"
    terminal.type(f"cd {shlex.quote(str(folder))} && clear && {environment} {line}")


def replace_value(walk: Walk, value: str) -> None:
    walk.press("C-u", "C-k")
    walk.write(value)


def choose_images(walk: Walk) -> None:
    walk.press("F3")
    walk.see("▶ images", "images")
    walk.press("Down")
    walk.see(r"captions \(\.txt\) +9  100%", "images-counted")
    walk.press("Enter")
    walk.see("images  ✓", "images-used")


def choose_settings(walk: Walk) -> None:
    """Look at words and buckets, and set what a tiny model on a processor wants."""
    walk.press("F3")
    walk.see("9 uses   0 without words", "words")
    walk.press("F3")
    walk.see("9 used   0 not used", "buckets")
    replace_value(walk, "192")
    walk.press("Tab")
    replace_value(walk, "4")
    for value in ("128", "320"):
        # Over the check box to the smallest and the largest side.
        walk.press("Tab", "Tab") if value == "128" else walk.press("Tab")
        replace_value(walk, value)
    walk.see(r"192 x 192", "buckets-small")
    walk.press("F3")
    walk.see("preset", "training")
    # Preset, folder, name, epochs.
    walk.press("Tab", "Tab", "Tab")
    replace_value(walk, "2")
    walk.press("Tab", "Tab")
    replace_value(walk, "1e-3")
    walk.press("Tab", "Tab", "Tab")
    replace_value(walk, "AdamW")
    walk.press("Tab")
    replace_value(walk, "1")
    # A processor has no fp16; the choice is opened and its first row taken.
    walk.press("Tab", "Enter")
    walk.see("bf16", "precision")
    walk.press("Home", "Enter")
    walk.see(r"mixed_precision +no", "training-changed")


def test_from_a_folder_of_images_to_a_checkpoint(
    tmp_path: Path, terminal: Terminal, toy_files: Path
) -> None:
    folder = tmp_path / "cats"
    folder.mkdir()
    shutil.copytree(toy_files / "images", folder / "images")
    model = toy_files / "model.safetensors"
    walk = Walk(terminal, Path(os.environ.get("KEEP_SCREENS", tmp_path / "screens")))
    start(terminal, folder, tmp_path / "state")

    walk.see("No model yet", "model")
    walk.write(str(model))
    walk.see("Stable Diffusion 1.x\n.*epsilon", "model-found")
    choose_images(walk)
    choose_settings(walk)
    walk.press("F3")
    walk.see(r"\+ image_dir = .images.", "review")
    walk.press("F5")
    walk.see("● (running|waiting|finished)", "run")
    terminal.wait_for("● finished")
    walk.see("finished", "finished")
    walk.press("Escape")
    walk.see("dataset.toml: as on disk", "wizard-again")
    walk.press("C-q")
    terminal.wait_for(r"ready:\s*$")

    run = folder / "output" / "cats.run"
    status = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert status["state"] == "finished"
    assert Path(status["checkpoint"]).stat().st_size > 1_000_000
    assert (run / "process.log").read_text(encoding="utf-8").strip()
    config = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    assert config["learning_rate"] == 1e-3
    assert len(list(walk.folder.iterdir())) > 12


def test_leaving_the_wizard_does_not_stop_the_training(
    tmp_path: Path, terminal: Terminal, toy_files: Path
) -> None:
    folder = tmp_path / "cats"
    shutil.copytree(toy_files, folder)
    config = folder / "config.toml"
    text = config.read_text(encoding="utf-8").replace("= 'demo'", "= 'cats'")
    config.write_text(text.replace(str(toy_files), str(folder)), encoding="utf-8")
    walk = Walk(terminal, tmp_path / "screens")
    start(terminal, folder, tmp_path / "state")
    terminal.wait_for("sdft wizard")
    walk.press("F3", "F3", "F3", "F3", "F3")
    terminal.wait_for("as on disk")
    walk.press("F5")
    terminal.wait_for("Started: sdft train config.toml")
    terminal.close()
    status = folder / "output" / "cats.run" / "run.json"

    def is_finished() -> bool:
        return status.exists() and json.loads(status.read_text())["state"] == "finished"

    deadline_s = time.monotonic() + 300
    while not is_finished() and time.monotonic() < deadline_s:
        time.sleep(0.5)
    assert is_finished()


@pytest.mark.parametrize("setting", ["NO_COLOR=1", "LC_ALL=C PYTHONIOENCODING=ascii", "TERM=vt100"])
def test_poor_terminals_show_the_wizard(tmp_path: Path, terminal: Terminal, setting: str) -> None:
    (tmp_path / "p").mkdir()
    start(terminal, tmp_path / "p", tmp_path / "state", setting=setting)
    terminal.wait_for("No model yet")
    terminal.press("F3")
    shown = terminal.wait_for("Folders of images")
    assert "PYTHONIOENCODING" not in setting or shown.isascii()
    terminal.press("C-q")
    terminal.wait_for(r"ready:\s*$")


@pytest.fixture(scope="module")
def toy_files(module_folder: Callable[[str], Path]) -> Path:
    from tests.toy_project import prepare_toy

    folder = module_folder("toy") / "demo"
    prepare_toy(folder)
    return folder
