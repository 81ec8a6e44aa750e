"""Starts the training of a saved draft, detached, and watches whether it gets going."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.config.folders import output_folder
from sdft.config.load import Config
from sdft.rundir import RunDir
from sdft.tui.commands import shown_line, start_detached
from sdft.tui.draft import Draft

LOG_NAME = "process.log"
NUM_LOG_LINES = 8
DEFAULT_NAME = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A training at work."""

    run: RunDir
    process: subprocess.Popen[bytes]
    log: Path
    line: str


def run_of(config: Config) -> RunDir:
    """Return where the run of a checked config goes."""
    return RunDir.of(output_folder(config), config.training.output_name or DEFAULT_NAME)


def train_words(draft: Draft, cwd: Path, *flags: str) -> list[str]:
    """Return the words behind `sdft` that train what the draft's files say."""
    path = draft.config.path
    return ["train", str(path.relative_to(cwd) if path.is_relative_to(cwd) else path), *flags]


def start_training(draft: Draft, config: Config, cwd: Path, flags: Sequence[str] = ()) -> Started:
    """Start `sdft train` on the saved files; what it prints goes into the run's folder.

    Raises: EnvironmentFault where that folder cannot be made; OSError.
    """
    run = run_of(config)
    log = run.path / LOG_NAME
    if "--overwrite" in flags:
        # The old folder is renamed, which Windows refuses while a file in it is open.
        log = run.path.with_suffix(".process.log")
    words = train_words(draft, cwd, *flags)
    return Started(
        run=run, process=start_detached(words, cwd, log), log=log, line=shown_line(words)
    )


def last_lines(log: Path) -> str:
    """Return the end of what a process printed."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return str(error)
    return "\n".join(lines[-NUM_LOG_LINES:])
