"""What earlier processes left in a run's folder and is in the way now.

In: a run folder whose lock this process holds. Out: events for what was removed or renamed.
"""

from __future__ import annotations

from sdft.events import Emit, Notice
from sdft.files import remove, unfinished_in
from sdft.files import replace as rename
from sdft.rundir import RunDir, numbered
from sdft.train.state import SavedState, finished_states, step_of


def sweep(run: RunDir, emit: Emit) -> None:
    """Remove what a process that died left unfinished; this one holds the run's lock."""
    output_dir, name = run.path.parent, run.path.stem
    beginnings = (f"{name}.", f"{name}-")
    left = [*unfinished_in(run.path), *unfinished_in(run.states)]
    left += [path for one in beginnings for path in unfinished_in(output_dir, one)]
    for path in left:
        remove(path)
    if left:
        names = ", ".join(path.name for path in left[:3])
        message = f"{len(left)} unfinished files of a process that died are removed: {names}"
        emit(Notice(severity="info", topic="unfinished", message=message))


def set_later_states_aside(run: RunDir, state: SavedState, emit: Emit) -> None:
    """Rename the states after the one that was named: they belong to what is done anew now."""
    if state.path.parent.resolve() != run.states.resolve():
        return
    for later in finished_states(run.states):
        if step_of(later) > state.progress.step:
            number = 1
            while (aside := numbered(later, number)).exists():
                number += 1
            rename(later, aside)
            message = f"{later.name} comes after the state that the run goes on from: {aside.name}"
            emit(Notice(severity="info", topic="moved", message=message))
