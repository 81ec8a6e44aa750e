"""Finds the state that a run goes on from and checks that it belongs to the run.

In: a state folder, or the folder of a run's states. Out: a SavedState, or None to start anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdft.errors import UserError
from sdft.events import CheckpointSaved, Emit, Event, EventLine, Notice, StateSaved
from sdft.rundir import MANIFEST
from sdft.train.state import (
    Identity,
    SavedState,
    newest_state,
    read_state,
    size_bytes,
)

SETTINGS = "settings"
_LONG = 60
"""Characters of a value that are shown."""


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


def events_of_state(state: SavedState | None) -> list[Event]:
    """Return what is to be said again about a state and the checkpoints written with it.

    A state holds the length of `events.jsonl` at its step, and a resumed run cuts the file there;
    the files are written after that moment, in the background, and not written again.
    """
    if state is None:
        return []
    lines = state.extras.get("said", [])
    found = [EventLine.read(line) for line in lines if isinstance(line, str)]
    events = [one[1] for one in found if one is not None and isinstance(one[1], CheckpointSaved)]
    itself = StateSaved(
        step=state.progress.step,
        epoch=state.progress.epoch,
        path=str(state.path),
        size_bytes=size_bytes(state.path),
        duration_s=0.0,
    )
    return [*events, itself]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run is made of, to compare with a state."""

    identity: Identity
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Those that decide the result, by name."""
    machine: Mapping[str, str] = field(default_factory=dict)
    """What the last bits depend on: device, threads, versions."""


def require_same(
    state: SavedState,
    now: RunFacts,
    *,
    allowed: Collection[str] = (),
    dataset_changes: Sequence[str] = (),
    emit: Emit,
) -> frozenset[str]:
    """Check that a state belongs to the run that goes on from it; return the names that differ.

    Only those in `allowed` may. `dataset_changes` are words for what differs in the images.

    Raises: UserError that shows each difference.
    """
    changes = changed(state, now, dataset_changes=dataset_changes)
    refused = [name for name in changes if name not in allowed]
    if refused:
        names = " ".join(refused)
        listed = "\n".join(f"    {name}: {changes[name]}" for name in refused)
        raise UserError(
            what=f"this state was made by another run:\n{listed}",
            where=str(state.path),
            fix=f"use the settings, images and model of that run, or accept it: --allow-changed"
            f" {names}",
            key="state_of_another_run",
            values={"listed": listed, "names": names},
        )
    for name, words in changes.items():
        message = f"{name}: {words}; allowed, so the run is no longer the one that was begun"
        emit(Notice(severity="warning", topic="resume", message=message))
    if state.machine:
        _tell_of_machine(state.machine, now.machine, emit)
    return frozenset(changes)


def changed(
    state: SavedState, now: RunFacts, *, dataset_changes: Sequence[str] = ()
) -> dict[str, str]:
    """Return what differs, by name, in words."""
    parts = state.identity.differences(now.identity)
    found = {}
    if SETTINGS in parts:
        parts.remove(SETTINGS)
        old, new = (_plain(values) for values in (state.settings, now.settings))
        names = [name for name in old | new if old.get(name) != new.get(name)]
        found = {name: f"{_shown(old.get(name))}, now {_shown(new.get(name))}" for name in names}
        if not found:
            found[SETTINGS] = "they differ, and the state does not say in what"
    for name in parts:
        old_value, new_value = state.identity.parts.get(name), now.identity.parts.get(name)
        found[name] = f"{_shown(old_value)}, now {_shown(new_value)}"
    if "dataset" in found and dataset_changes:
        found["dataset"] = "; ".join(dataset_changes)
    return found


def _tell_of_machine(saved: Mapping[str, str], now: Mapping[str, str], emit: Emit) -> None:
    rows = [
        f"{name} {saved.get(name, 'unknown')}, now {now.get(name, 'unknown')}"
        for name in [*saved, *(name for name in now if name not in saved)]
        if saved.get(name) != now.get(name)
    ]
    if rows:
        message = (
            f"the state was made with {'; '.join(rows)}. The run goes on with the same data, but"
            " its last bits may differ from a run that was never stopped"
        )
        emit(Notice(severity="warning", topic="exactness", message=message))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they come back from JSON, so that a list equals a tuple."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return plain


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
