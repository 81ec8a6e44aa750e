"""What a `train` command means, given what its output folder already holds.

In: the run folder, the settings, `--resume`, `--overwrite`. Out: a Choice; nothing is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.errors import UserError
from sdft.rundir import FINISHED, RunDir, RunStatus

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to do with a run folder."""

    done: RunStatus | None = None
    """The finished run, where there is nothing left to do."""
    resume: Path | None = None
    """A state folder to go on from; `states` of the run for the newest."""
    move_aside: bool = False
    """The old run and its files get another name first."""
    remove_old_at_end: bool = False
    """What was moved aside goes when the new files are whole."""


def choose(
    run: RunDir,
    *,
    config_digest: str,
    resume: str | None,
    overwrite: bool,
    command: str,
    exists: Callable[[str], bool] = lambda path: Path(path).exists(),
) -> Choice:
    """Decide between starting, going on, and leaving a finished run alone.

    `exists` tells whether a checkpoint is where its run says.

    Raises: UserError where the run is unfinished and nothing says what to do with it, or where
        the state to go on from does not exist.
    """
    status = run.read_status()
    same = status is not None and status.config_digest == config_digest
    whole = status is not None and status.checkpoint is not None and exists(status.checkpoint)
    if overwrite:
        return Choice(move_aside=status is not None, remove_old_at_end=True)
    if status is not None and status.state == FINISHED and same and whole:
        return Choice(done=status)
    if resume is not None:
        return _resumed(run, resume)
    if status is None:
        return Choice()
    if status.state != FINISHED and same:
        raise UserError(
            what="this run was not finished",
            where=str(run.path),
            fix=f"go on with it: {command} --resume auto\n"
            f"     or start again: {command} --overwrite",
            key="run_unfinished",
            values={"command": command},
        )
    return Choice(move_aside=True)


def _resumed(run: RunDir, resume: str) -> Choice:
    if resume == AUTO:
        return Choice(resume=run.states)
    folder = Path(resume)
    if not folder.is_dir():
        raise UserError(
            what="no such state folder",
            where=f"--resume {resume}",
            fix="name a folder under <run>/states, or use --resume auto",
            key="no_such_state",
        )
    return Choice(resume=folder)


def without(words: Sequence[str], *names: str) -> list[str]:
    """Return a command line without some options and their values."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip and not word.startswith("--"):
            skip = False
            continue
        skip = False
        name = word.partition("=")[0].lstrip("-").replace("-", "_")
        if word.startswith("--") and name in names:
            skip = "=" not in word
            continue
        kept.append(word)
    return kept
