"""`sdft verify RUN`: whether all that a run has written so far is whole.

In: a run's folder, or one state's. Out: each state, each checkpoint, the lines of the events, the
settings, what a process that died left unfinished; and from where the run can go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdft.config.load import load_config
from sdft.errors import DataError, Problem, SdftError
from sdft.events import CheckpointSaved, Emit, EventLine, StageFinished, StageProgress, StageStarted
from sdft.files import unfinished_in
from sdft.rundir import FINISHED, MANIFEST, RunDir, holder_is_alive, read_lock
from sdft.train.state import PROGRESS, finished_states, read_state
from sdft.units import format_bytes

STAGE = "verify"
MAX_LINE_BYTES = 1 << 20
"""Of `events.jsonl`; a longer line is none that a run wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateReport:
    """What one state holds."""

    path: Path
    step: int | None
    """None where it cannot be read."""
    size_bytes: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunVerifyResult:
    path: Path
    state: str
    """`finished`, `unfinished`, `at work`, or `not begun`."""
    states: tuple[StateReport, ...]
    checkpoints: Mapping[str, bool]
    """Each checkpoint that is still there, and whether it is whole."""
    events: int
    unreadable_events: int
    unfinished: tuple[str, ...]
    resume_step: int | None
    """The step that `--resume auto` would go on after."""
    problems: tuple[Problem, ...]

    def as_json(self) -> dict[str, Any]:
        record = asdict(self)
        record["states"] = [asdict(one) | {"path": str(one.path)} for one in self.states]
        return record | {"path": str(self.path)}

    def words(self) -> str:
        """Say it in a few lines."""
        lines = [f"{self.path}: {self.state}, {self.events} events"]
        for one in self.states:
            said = one.problem or f"whole, {format_bytes(one.size_bytes)}"
            lines.append(f"  state {one.path.name}: {said}")
        lines += [
            f"  checkpoint {name}: {'whole' if whole else 'NOT WHOLE'}"
            for name, whole in self.checkpoints.items()
        ]
        if self.unfinished:
            lines.append(f"  unfinished, to be removed at the next start: {len(self.unfinished)}")
        if self.resume_step is not None:
            lines.append(f"  --resume auto goes on after step {self.resume_step}")
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join([*lines, "whole" if not self.problems else "NOT WHOLE"])


def is_state(path: Path) -> bool:
    """Tell whether a folder looks like a state."""
    return (path / MANIFEST).is_file() or (path / PROGRESS).is_file()


def verify_run(path: Path, *, emit: Emit) -> RunVerifyResult:
    """Read all of a run, or of one state, and tell what is whole."""
    if is_state(path):
        report = _state_report(path)
        return RunVerifyResult(
            path=path,
            state="a state",
            states=(report,),
            checkpoints={},
            events=0,
            unreadable_events=0,
            unfinished=(),
            resume_step=report.step,
            problems=_problems_of([report]),
        )
    run = RunDir(path)
    started_s = time.monotonic()
    folders = finished_states(run.states)
    emit(StageStarted(stage=STAGE, total=len(folders), unit="states"))
    states = []
    for number, folder in enumerate(folders, start=1):
        states.append(_state_report(folder))
        emit(StageProgress(stage=STAGE, done=number))
    duration_s = time.monotonic() - started_s
    emit(StageFinished(stage=STAGE, done=len(folders), duration_s=duration_s))
    num_events, num_unreadable, saved = _events(run.events_file)
    checkpoints, problems = _checkpoints(run, saved, emit)
    problems += [*_problems_of(states), *_problems_of_files(run, num_unreadable)]
    whole = [one.step for one in states if one.step is not None]
    return RunVerifyResult(
        path=path,
        state=_state_of(run),
        states=tuple(states),
        checkpoints=checkpoints,
        events=num_events,
        unreadable_events=num_unreadable,
        unfinished=tuple(
            str(one) for one in [*unfinished_in(run.path), *unfinished_in(run.states)]
        ),
        resume_step=max(whole, default=None),
        problems=tuple(problems),
    )


def _state_report(folder: Path) -> StateReport:
    size_bytes = sum(one.stat().st_size for one in folder.iterdir() if one.is_file())
    try:
        step, problem = read_state(folder).progress.step, ""
    except DataError as error:
        step, problem = None, error.problems[0].what
    return StateReport(path=folder, step=step, size_bytes=size_bytes, problem=problem)


def _problems_of(states: list[StateReport]) -> tuple[Problem, ...]:
    fix = "resume passes over it and takes the one before"
    return tuple(Problem(one.problem, str(one.path), fix) for one in states if one.problem)


def _events(path: Path) -> tuple[int, int, list[Path]]:
    """Return the number of events, of lines that are none, and the checkpoints that are named."""
    num_events = num_unreadable = 0
    saved: dict[Path, None] = {}
    for line in _lines(path):
        found = EventLine.read(line)
        if found is None:
            num_unreadable += 1
            continue
        num_events += 1
        if isinstance(found[1], CheckpointSaved):
            saved[Path(found[1].path)] = None
    return num_events, num_unreadable, list(saved)


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            # The last line of a run that is at work may be half written.
            if line.endswith(b"\n"):
                yield line.decode("ascii", "replace")


def _checkpoints(
    run: RunDir, saved: list[Path], emit: Emit
) -> tuple[dict[str, bool], list[Problem]]:
    from sdft.jobs.verify import verify_weights

    found: dict[str, bool] = {}
    problems: list[Problem] = []
    for named in saved:
        # A run that was moved has its checkpoints beside it still.
        path = next((one for one in (run.path.parent / named.name, named) if one.exists()), None)
        if path is None:
            # Older checkpoints make room for newer ones.
            continue
        try:
            of_this = verify_weights(path, emit=emit).problems
        except SdftError as error:
            of_this = error.problems
        found[path.name] = not of_this
        problems += of_this
    return found, problems


def _problems_of_files(run: RunDir, num_unreadable: int) -> Iterator[Problem]:
    if num_unreadable:
        yield Problem(f"{num_unreadable} lines are no events of this version", str(run.events_file))
    if run.config_file.is_file():
        try:
            load_config(run.config_file, {}, run.path)
        except SdftError as error:
            yield from error.problems
    status = run.read_status()
    if status is not None and status.state == FINISHED and status.checkpoint is not None:
        named = Path(status.checkpoint)
        if not named.exists() and not (run.path.parent / named.name).exists():
            yield Problem("the result of this finished run is gone", str(named))


def _state_of(run: RunDir) -> str:
    holder = read_lock(run.lock_file)
    if holder is not None and holder_is_alive(holder):
        return "at work"
    status = run.read_status()
    return "not begun" if status is None else status.state
