"""A real training of the toy, watched and steered by keys in a real terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sdft.formats.safetensors_header import read_header
from tests.tui.terminal import ROOT, WAIT_S, Terminal, ask, python, watch

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

STEPS = 30


def weights_of(path: Path) -> bytes:
    return path.read_bytes()[read_header(path).data_start :]


def start(folder: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        python(
            "-m", "sdft", "train", folder / "config.toml", "--output_name", name,
            "--max_train_steps", str(STEPS), "--device", "cpu",
            "--sample_prompts", folder / "prompts.txt", *more,
        ),
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


# Long, and on a busy machine the toy may be finished before the first key arrives.
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_toy_run_steered_from_the_dashboard_has_the_weights_of_an_unwatched_one(
    prepared: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(prepared, folder)
    config = (folder / "config.toml").read_text("utf-8").splitlines()
    kept = [
        f"output_dir = '{folder / 'output'}'" if line.startswith("output_dir") else line
        for line in config
        if not line.startswith("max_train_epochs")
    ]
    (folder / "config.toml").write_text("\n".join(kept) + "\n", "utf-8")
    (folder / "prompts.txt").write_text("a red circle --w 64 --h 64 --s 2 --d 1\n", "utf-8")
    assert start(folder, "alone").wait(timeout=600) == 0

    run = folder / "output" / "watched.run"
    run.mkdir()
    terminal = Terminal()
    training = start(folder, "watched")
    try:
        watch(terminal, run)
        terminal.wait_for(f"step [0-9]+ of {STEPS}")
        ask(terminal, "p", "Pause the run", "pause: paused after step")
        terminal.wait_for("● paused")
        terminal.press("C-q")
        terminal.wait_for(r"ready:\s*$")
        watch(terminal, run)
        terminal.wait_for("● paused")
        ask(terminal, "s", "Draw the sample prompts", "sample: drew 1 pictures")
        terminal.press("3")
        terminal.wait_for("a red circle")
        terminal.press("1")
        ask(terminal, "w", "Save a checkpoint", "save: wrote watched-step")
        ask(terminal, "p", "Let the run go on", "resume: goes on after step")
        ask(terminal, "x", "Save the state and stop", "stop: stops after step")
        terminal.wait_for("● stopped")
        assert training.wait(timeout=WAIT_S) == 5

        training = start(folder, "watched", "--resume", "auto")
        terminal.wait_for("● running")
        terminal.wait_for("● finished")
        assert f"step {STEPS} of {STEPS}" in terminal.screen()
        assert training.wait(timeout=WAIT_S) == 0
    finally:
        training.kill()
        training.wait()
        terminal.close()
    alone, watched = (folder / "output" / f"{name}.safetensors" for name in ("alone", "watched"))
    assert weights_of(alone) == weights_of(watched)
