"""Whether the disk has room for what a run will write, from its rules of saving.

In: sizes and rules. Out: when the disk will be full, or that it will not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdft.errors import EnvironmentFault
from sdft.events import Emit, Notice
from sdft.train.checkpoint import SaveRules
from sdft.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskNeeds:
    """What a run will write."""

    first_step: int
    """Updates done before the run's first one."""
    total_steps: int
    num_epochs: int
    steps_through: Callable[[int], int]
    """Updates of the first so many epochs."""
    checkpoints: SaveRules
    checkpoint_bytes: int
    state_rules: SaveRules
    state_bytes: int
    keeps_rolling_state: bool
    state_at_end: bool


def held_bytes(needs: DiskNeeds) -> list[tuple[int, int]]:
    """Return (step, bytes) of all that is kept after each save, in order of the steps.

    A new file is whole before an old one goes, so both count for a moment.
    """
    saves: list[tuple[int, int]] = []
    for rules, size in (
        (needs.checkpoints, needs.checkpoint_bytes),
        (needs.state_rules, needs.state_bytes),
    ):
        if rules.every_n_steps:
            kept = _kept(rules.last_n_steps, rules.every_n_steps)
            steps = range(rules.every_n_steps, needs.total_steps, rules.every_n_steps)
            saves += [(step, size) for step in _after(steps, needs.first_step)[:kept]]
        if rules.every_n_epochs:
            kept = None if rules.last_n_epochs is None else rules.last_n_epochs + 1
            epochs = range(rules.every_n_epochs, needs.num_epochs, rules.every_n_epochs)
            ends = [needs.steps_through(epoch) for epoch in epochs]
            saves += [(step, size) for step in _after(ends, needs.first_step)[:kept]]
    if needs.keeps_rolling_state:
        # The new one is whole before the old one goes.
        saves.append((needs.first_step + 1, 2 * needs.state_bytes))
        saves.append((needs.total_steps, -needs.state_bytes))
    last = needs.checkpoint_bytes + (needs.state_bytes if needs.state_at_end else 0)
    saves.append((needs.total_steps, last))
    total = 0
    held = []
    for step, size in sorted(saves):
        total += size
        held.append((step, total))
    return held


def require_disk(needs: DiskNeeds, folder: Path, emit: Emit) -> None:
    """Say when the disk will be full, if it will.

    Raises: EnvironmentFault where not even the last checkpoint has room.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needs.checkpoint_bytes > free:
        raise EnvironmentFault(
            what=f"the result takes {format_bytes(needs.checkpoint_bytes)}, and"
            f" {format_bytes(free)} are free",
            where=str(folder),
            fix="free some space or choose another output_dir",
            key="no_room_for_result",
            values={"needed": format_bytes(needs.checkpoint_bytes), "free": format_bytes(free)},
        )
    held = held_bytes(needs)
    full_at = next((step for step, total in held if total > free), None)
    if full_at is not None:
        message = (
            f"the disk of {folder} will be full at step {full_at} of {needs.total_steps}: what is"
            f" saved until the end takes {format_bytes(held[-1][1])}, and {format_bytes(free)} are"
            " free; save more seldom, keep fewer (save_last_n_steps, save_last_n_steps_state), or"
            " free some space"
        )
        emit(Notice(severity="warning", topic="disk", message=message))


def _after(steps: range | list[int], first: int) -> list[int]:
    return [step for step in steps if step > first]


def _kept(last_n_steps: int | None, every: int) -> int | None:
    """Return how many saves are there at once at most, or None for all."""
    return None if last_n_steps is None else last_n_steps // every + 2
