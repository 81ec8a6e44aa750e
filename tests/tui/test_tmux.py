"""The dashboard in a real terminal: a run in one pane, watched and steered in another."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tui.terminal import ROOT, WAIT_S, Terminal, ask, python, watch

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


STEPS = 3_000
"""So many that no machine is too slow to press the keys in time."""


def fake_training(run: Path, steps: int, step_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        python("-m", "tests.tui.fake_training", run, str(steps), str(step_s)),
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_a_run_is_watched_steered_stopped_resumed_and_ends_as_an_unwatched_one(
    tmp_path: Path, terminal: Terminal
) -> None:
    alone = fake_training(tmp_path / "alone.run", STEPS, 0.0)
    weights = alone.communicate(timeout=WAIT_S)[0].split()[-1]

    run = tmp_path / "watched.run"
    # Before the training makes it: where it starts slowly there would be nothing to watch yet.
    run.mkdir()
    training = fake_training(run, STEPS, 0.1)
    try:
        watch(terminal, run)
        terminal.wait_for("● running")
        ask(terminal, "p", "Pause the run", "pause: paused after step")
        terminal.wait_for("● paused")
        # The dashboard is killed and opened again; the run does not care.
        terminal.press("C-q")
        terminal.wait_for(r"ready:\s*$")
        watch(terminal, run)
        terminal.wait_for("● paused")
        ask(terminal, "s", "Draw the sample prompts", "sample: 1 picture")
        terminal.press("3")
        terminal.wait_for("a cat")
        terminal.press("1")
        ask(terminal, "w", "Save a checkpoint", "save: saved step")
        ask(terminal, "p", "Let the run go on", "resume: goes on after step")
        terminal.wait_for("● running")
        ask(terminal, "x", "Save the state and stop", "stop: stops after step")
        terminal.wait_for("● stopped")
        terminal.wait_for("--resume auto")
        step = int(training.communicate(timeout=WAIT_S)[0].split()[1])
        assert step < STEPS

        training = fake_training(run, STEPS, 0.001)
        shown = terminal.wait_for("● finished")
        assert "step 3,000 of 3,000" in shown
        assert training.communicate(timeout=WAIT_S)[0].split()[-1] == weights
        terminal.press("q")
        terminal.wait_for(r"ready:\s*$")
    finally:
        training.kill()
        training.communicate()


def test_a_run_that_is_killed_is_shown_to_have_died(tmp_path: Path, terminal: Terminal) -> None:
    run = tmp_path / "cats.run"
    training = fake_training(run, 100_000, 0.02)
    watch(terminal, run)
    terminal.wait_for("● running")
    training.kill()
    training.communicate()
    terminal.wait_for("● died")
    terminal.wait_for("gone without a word")
    terminal.press("q")


def test_ctl_does_what_the_keys_do(tmp_path: Path) -> None:
    run = tmp_path / "cats.run"
    training = fake_training(run, 100_000, 0.02)

    def ctl(*words: str) -> subprocess.CompletedProcess[str]:
        command = python("-m", "sdft", "ctl", run, *words)
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    try:
        deadline_s = time.monotonic() + WAIT_S
        while not (run / "events.jsonl").exists() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert "paused after step" in ctl("pause").stdout
        assert ctl("save").returncode == 0
        assert "learning_rate 3e-06" in ctl("set", "learning_rate=3e-6").stdout
        refused = ctl("set", "learning_rate=0.5", "--json")
        assert (refused.returncode, "too much" in refused.stderr) == (2, True)
        assert ctl("puase").returncode == 2
        assert 'did you mean "pause"' in ctl("puase").stderr
        assert "goes on" in ctl("resume", "--json").stdout
        assert ctl("stop").returncode == 0
        training.communicate(timeout=WAIT_S)
        assert ctl("stop").returncode == 2
    finally:
        training.kill()
        training.communicate()
