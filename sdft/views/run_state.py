"""Whether a run is at work, paused, finished, stopped or dead, and what to do about it.

In: what its folder says (`look`) and what its events come to (a Summary). Out: a RunState.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdft.errors import DataError
from sdft.events import RunFinished, RunStopped
from sdft.rundir import FINISHED, RunDir, RunStatus, holder_is_alive, read_lock
from sdft.views.summary import Summary

WAITING = "waiting"
RUNNING = "running"
PAUSED = "paused"
FINISHED_STATE = "finished"
STOPPED = "stopped"
DIED = "died"

GO_ON = "go on with: "
"""Stands before the command in the last words of a stopped run; the command alone is copied."""

STATES = (WAITING, RUNNING, PAUSED, FINISHED_STATE, STOPPED, DIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the files beside `events.jsonl` say."""

    exists: bool
    status: RunStatus | None
    pid: int | None
    """The process that holds or held the lock; none where there is no lock."""
    alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    name: str
    """One of STATES."""
    reason: str = ""
    """Why it ended, where it did before its last step; text from a file or another program."""
    fix: str = ""
    """The command line that goes on from here."""


def look(run: RunDir) -> Facts:
    """Read lock and status; a damaged file counts as one that is not there."""
    holder = read_lock(run.lock_file)
    try:
        status = run.read_status()
    except (DataError, OSError):
        status = None
    return Facts(
        exists=run.path.is_dir(),
        status=status,
        pid=None if holder is None else _pid(holder),
        alive=holder is not None and holder_is_alive(holder),
    )


def _pid(holder: dict[str, object]) -> int | None:
    try:
        return int(str(holder["pid"]))
    except ValueError:
        return None


def run_state(summary: Summary, facts: Facts) -> RunState:
    """Return the state, with the reason and the way on where the run ended early."""
    if facts.alive:
        return RunState(name=PAUSED if summary.paused else RUNNING)
    end = summary.end
    if isinstance(end, RunFinished):
        return RunState(name=FINISHED_STATE)
    if isinstance(end, RunStopped):
        return RunState(name=STOPPED, reason=end.reason, fix=end.fix.removeprefix(GO_ON))
    if summary.run is None and not summary.stages:
        finished = facts.status is not None and facts.status.state == FINISHED
        return RunState(name=FINISHED_STATE if finished else WAITING)
    return RunState(name=DIED, reason=_last_words(summary, facts), fix=_way_on(summary))


def _last_words(summary: Summary, facts: Facts) -> str:
    errors = [notice.message for notice in summary.notices if notice.severity == "error"]
    if errors:
        return errors[-1]
    process = "its process" if facts.pid is None else f"its process {facts.pid}"
    return (
        f"{process} is gone without a word: ended by force, out of memory, or the machine went down"
    )


def _way_on(summary: Summary) -> str:
    if summary.run is None or not summary.run.command:
        return ""
    command = summary.run.command
    return command if "--resume" in command else f"{command} --resume auto"
