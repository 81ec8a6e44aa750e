"""Finds the state that a run goes on from and checks that it belongs to the run.

In: a state folder, or the folder of a run's states. Out: a SavedState, or None to start anew.
"""

from __future__ import annotations

from pathlib import Path

from sdft.errors import UserError
from sdft.events import Emit, Notice
from sdft.train.state import MANIFEST, Identity, SavedState, newest_state, read_state


def resumed_state(folder: Path | None, emit: Emit) -> SavedState | None:
    """Return the state to go on from.

    `folder` is a state, or the folder of a run's states, whose newest whole one is taken.

    Raises: DataError where the named state is damaged.
    """
    if folder is None:
        return None
    if (folder / MANIFEST).exists():
        return read_state(folder)
    state, passed_over = newest_state(folder)
    for path, reason in passed_over:
        message = f"the state {path.name} is passed over: {reason}"
        emit(Notice(severity="warning", topic="resume", message=message))
    if state is None:
        message = "there is no state to go on from; the run starts at its first step"
        emit(Notice(severity="warning", topic="resume", message=message))
    else:
        message = f"going on from {state.path.name}"
        emit(Notice(severity="info", topic="resume", message=message))
    return state


def require_same(saved: Identity, now: Identity, *, where: Path) -> None:
    """Check that a state belongs to the run that goes on from it.

    Raises: UserError that lists what differs.
    """
    different = saved.differences(now)
    if different:
        rows = [
            f"{name} ({_short(saved.parts.get(name))}, now {_short(now.parts.get(name))})"
            for name in different
        ]
        raise UserError(
            what="this state was made by another run: " + "; ".join(rows),
            where=str(where),
            fix="use the settings, images and model of that run, or start a new run",
        )


def _short(value: str | None) -> str:
    return "nothing" if value is None else value[:12]
