"""How many items an update sees, one number a dataset.

In: the settings, the number of processes, perhaps a state. Out: the effective batch; that of a
state is kept on another number of processes, so that the same steps follow.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdft.config.training import TrainingSettings
from sdft.errors import UserError
from sdft.events import Emit, SettingChosen
from sdft.train.state import SavedState

NAME = "effective_batch"
"""In a state's identity."""


def effective_batch(
    settings: TrainingSettings,
    batch_size: Sequence[int],
    num_processes: int,
    *,
    state: SavedState | None,
    emit: Emit,
) -> list[int]:
    """Return batch size x accumulation x processes, or what the state's run began with.

    Raises: UserError where there would be processes without any item in each step.
    """
    per_process = [size * settings.gradient_accumulation_steps for size in batch_size]
    asked = [items * num_processes for items in per_process]
    kept = _kept(state, per_process) if NAME not in settings.allow_changed else None
    if kept is None or kept == asked:
        return asked
    too_small = [size for size in kept if size < num_processes]
    if too_small:
        raise UserError(
            what=f"the run has steps of {too_small[0]} images, which {num_processes} processes"
            " cannot share: some would never have one",
            where=f"num_processes = {num_processes}",
            fix=f"resume with {min(kept)} processes or fewer, or accept larger steps:"
            f" --allow-changed {NAME}",
        )
    reason = (
        f"the state's run has steps of so many images; {num_processes} processes share each of them"
    )
    emit(SettingChosen(name="images a step", value=kept, reason=reason))
    return kept


def _kept(state: SavedState | None, per_process: Sequence[int]) -> list[int] | None:
    """Return a state's effective batch where only the number of processes can have changed it."""
    if state is None or NAME not in state.identity.parts:
        return None
    try:
        kept = [int(size) for size in state.identity.parts[NAME].split(",")]
    except ValueError:
        return None
    if len(kept) != len(per_process):
        return None
    # The processes that it was begun with; other settings than these show as a difference.
    counts = {size / items for size, items in zip(kept, per_process, strict=True)}
    return kept if len(counts) == 1 and counts.pop().is_integer() else None
