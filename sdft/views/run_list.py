"""The runs of a folder with their state and last figures: what `sdft runs` shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sdft.rundir import RunDir
from sdft.units import format_duration
from sdft.views.find_runs import is_run, runs_below
from sdft.views.history import RunReader
from sdft.views.run_state import RUNNING, look, run_state


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run in a few figures."""

    run: Path
    name: str
    state: str
    """One of `run_state.STATES`."""
    reason: str
    step: int
    steps: int | None
    """Of the whole run; none before it has begun."""
    epoch: int | None
    loss: float | None
    """The mean of about the last 50 steps."""
    validation: float | None
    left_s: float | None
    """To the last step; only of a run at work."""
    checkpoint: str | None

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"run": str(self.run)}


def list_runs(folder: Path) -> Iterator[RunRow]:
    """Give the runs in a folder and below it, the one written last first.

    Of a long run only a part of the events is read, so that a list of many comes at once.
    """
    runs = [RunDir(folder)] if is_run(folder) else runs_below(folder)
    for run in runs:
        yield run_row(run)


def run_row(run: RunDir) -> RunRow:
    """Return a run's figures."""
    reader = RunReader(run.events_file)
    if not reader.is_behind:
        while reader.advance():
            pass
    summary = reader.snapshot().summary
    facts = look(run)
    state = run_state(summary, facts)
    status = facts.status
    last = summary.last_step
    checkpoint = summary.checkpoint.path if summary.checkpoint is not None else None
    if status is not None and status.checkpoint:
        checkpoint = status.checkpoint
    return RunRow(
        run=run.path,
        name=run.path.name.removesuffix(".run"),
        state=state.name,
        reason=state.reason,
        step=summary.step,
        steps=None if summary.run is None else summary.run.steps,
        epoch=None if last is None else last.epoch,
        loss=summary.loss.mean,
        validation=None if summary.validation is None else summary.validation.loss,
        left_s=summary.left_s if state.name == RUNNING else None,
        checkpoint=checkpoint,
    )


def row_words(row: RunRow) -> tuple[str, ...]:
    """Return a run's figures as text, one a column."""
    of = "" if row.steps is None else f" of {row.steps}"
    return (
        row.name,
        row.state,
        f"{row.step}{of}",
        "" if row.loss is None else f"{row.loss:.4f}",
        "" if row.validation is None else f"{row.validation:.4f}",
        "" if row.left_s is None else f"{format_duration(row.left_s)} left",
        row.reason,
    )


COLUMNS = ("name", "state", "step", "loss", "held out", "time", "")
