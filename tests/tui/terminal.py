"""A real terminal for tests: one tmux session."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 120.0
"""Much longer than anything takes; a machine that is busy with other tests is slow."""


class Terminal:
    """One tmux session of its own server, so that nobody's sessions are touched."""

    def __init__(self, columns: int = 100, lines: int = 30) -> None:
        self.socket = f"sdft-test-{uuid.uuid4().hex[:8]}"
        self._tmux(
            "new-session",
            "-d",
            "-s",
            "w",
            "-x",
            str(columns),
            "-y",
            str(lines),
            "env PS1=ready: sh",
        )

    def _tmux(self, *words: str) -> str:
        # No settings of the person who runs the tests.
        command = ["tmux", "-L", self.socket, "-f", os.devnull, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def type(self, line: str) -> None:
        self._tmux("send-keys", "-t", "w", "-l", line)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", "-t", "w", *keys)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p", "-t", "w")

    def wait_for(self, pattern: str) -> str:
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            shown = self.screen()
            if re.search(pattern, shown):
                return shown
            time.sleep(0.1)
        raise AssertionError(f"{pattern!r} did not come up in\n{shown}")

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self.socket, "kill-server"], check=False, capture_output=True)


def python(*words: str | Path) -> list[str]:
    return [sys.executable, *map(str, words)]


def watch(terminal: Terminal, run: Path) -> None:
    """Start the dashboard in the terminal."""
    words = shlex.join(python("-m", "sdft", "watch", run))
    terminal.type(f"cd {shlex.quote(str(ROOT))} && clear && SDFT_LANG=en {words}")


def ask(terminal: Terminal, key: str, question: str, answer: str) -> None:
    """Press a key that steers, say yes, and wait for the run's answer."""
    terminal.press(key)
    terminal.wait_for(question)
    terminal.press("y")
    terminal.wait_for(answer)
