"""`sdft train`: from settings to a checkpoint.

In: a Config. Out: the run folder, the checkpoint, a TrainResult. Reading order: `run_train` decides
what the command means, `_Run.go` does it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sdft.config.folders import output_folder
from sdft.config.load import Config
from sdft.config.training import TrainingSettings
from sdft.config.write import config_digest, resolved_toml
from sdft.errors import (
    Interrupted,
    PeerLost,
    SaidElsewhere,
    SdftError,
    StoppedResumable,
    UserError,
)
from sdft.events import Emit, Notice, RunFinished, RunStarted, RunStopped, ignore
from sdft.files import remove, write_json, write_text
from sdft.jobs.environment import environment_facts
from sdft.jobs.training.awake import kept_awake
from sdft.jobs.training.choice import AUTO, Choice, choose
from sdft.jobs.training.outputs import Outputs, fetched_state, outputs_of
from sdft.jobs.training.stopping import INTERRUPTED, NO_GAIN, StopRequest
from sdft.processes import is_started_by_sdft, own_place
from sdft.rundir import FINISHED, UNFINISHED, RunDir, RunLock, RunStatus
from sdft.urls import as_path, is_url

if TYPE_CHECKING:
    from sdft.jobs.training.running import TrainingRun
    from sdft.jobs.training.team import Team

DEFAULT_NAME = "last"

CAUSE_WITHIN_S = 5.0
"""Whoever started several processes looks at them many times a second."""


class Recorder(Protocol):
    """Who writes the run's events down; keeps those that come before it is opened."""

    def open(self, run: RunDir, events_at_bytes: int | None = None) -> None: ...

    def position(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run came to."""

    steps: int
    epochs: int
    loss: float | None
    """Mean over the last epoch's items."""
    checkpoint: Path
    run: Path
    resume: Path | None
    """The state that the run went on from; none where it started anew."""
    already_done: bool = False

    def as_json(self) -> dict[str, object]:
        record = asdict(self)
        return record | {
            "checkpoint": str(self.checkpoint),
            "run": str(self.run),
            "resume": str(self.resume) if self.resume else None,
        }


def run_train(config: Config, *, command: str, emit: Emit, recorder: Recorder) -> TrainResult:
    """Train as the settings say; in each process of a run that has several.

    `command` is the command line to show and to repeat with `--resume auto`.

    Raises: SdftError of every kind; Interrupted and StoppedResumable where a stop was asked for;
        SaidElsewhere where another process says what ended the run.
    """
    place = own_place()
    if place.size == 1:
        return _run(config, command, emit, recorder, None)
    # Only here: one process finds mistakes before torch is loaded.
    from sdft.jobs.training.together_start import team_of

    with team_of(config, place) as team:
        return _run(config, command, emit, recorder, team)


def _run(
    config: Config, command: str, emit: Emit, recorder: Recorder, team: Team | None
) -> TrainResult:
    settings = config.training
    run = RunDir.of(output_folder(config), settings.output_name or DEFAULT_NAME)
    outputs = outputs_of(config, run, emit)
    digest = config_digest(config)

    # Started again by torchrun after a process has died: there is but one thing to do. A process
    # that has taken the place of another is there for the first time.
    again = team is not None and team.maxima([team.place.attempt])[0] > 0

    def chosen() -> Choice:
        resume = settings.resume or (AUTO if again else None)
        outputs.pull(with_state=resume == AUTO)
        if resume is not None and is_url(resume):
            resume = str(fetched_state(config, run, resume, emit))
        return choose(
            run,
            config_digest=digest,
            resume=resume,
            overwrite=settings.overwrite and not again,
            command=command,
            exists=outputs.exists,
        )

    choice = chosen() if team is None else team.from_main(chosen)
    if choice.done is not None:
        return _already_done(run, choice.done, emit)
    if team is not None and not team.is_main:
        return _follow(config, choice, run, team)
    if choice.move_aside:
        outputs.require_free()
    moved = _move_aside(run, settings, choice, emit)
    with RunLock(run):
        try:
            result = _train_locked(
                config, digest, choice, run, outputs, command, emit, recorder, team
            )
        finally:
            outputs.end()
    if choice.remove_old_at_end:
        for path in moved:
            remove(path)
    return result


def _follow(config: Config, choice: Choice, run: RunDir, team: Team) -> TrainResult:
    """Take part in a run whose main process is another one; nothing is written here.

    Raises: SdftError for what goes wrong here, SaidElsewhere for what all see.
    """
    from sdft.jobs.training.assembly import prepare_run
    from sdft.jobs.training.together_start import same_state

    with StopRequest(None) as stop_request:
        state = same_state(None, team)
        live = prepare_run(
            config, run=run, state=state, emit=ignore, events_bytes=lambda: 0, team=team
        )
        reason = live.train(stop_request)
        if reason not in (None, NO_GAIN):
            kind = Interrupted if reason == INTERRUPTED else StoppedResumable
            live.keeper.save_rolling_state(live.meter.progress)
            # Not before the main process has saved a state.
            team.meet()
            raise SaidElsewhere(f"stopped: {reason}", exit_code=kind.exit_code)
        return TrainResult(
            steps=live.meter.progress.step,
            epochs=live.plan.num_epochs,
            loss=live.meter.mean_loss(),
            checkpoint=live.save_at_end(),
            run=run.path,
            resume=live.resumed_from,
        )


def _already_done(run: RunDir, status: RunStatus, emit: Emit) -> TrainResult:
    assert status.checkpoint is not None
    message = f"this run is finished; its checkpoint is {status.checkpoint}"
    emit(Notice(severity="info", topic="finished", message=message))
    return TrainResult(
        steps=status.steps,
        epochs=status.epochs,
        loss=status.loss,
        checkpoint=as_path(status.checkpoint),
        run=run.path,
        resume=None,
        already_done=True,
    )


def _move_aside(run: RunDir, settings: TrainingSettings, choice: Choice, emit: Emit) -> list[Path]:
    """Rename what an earlier run left, if the choice says so; return the new names."""
    if not choice.move_aside:
        return []
    with RunLock(run):
        status = run.read_status()
    checkpoint = Path(status.checkpoint) if status and status.checkpoint else None
    moved = run.move_aside(*([checkpoint] if checkpoint else []))
    for old, new in moved:
        emit(Notice(severity="info", topic="moved", message=f"{old} is now {new}"))
    return [new for _, new in moved]


def _train_locked(
    config: Config,
    digest: str,
    choice: Choice,
    run: RunDir,
    outputs: Outputs,
    command: str,
    emit: Emit,
    recorder: Recorder,
    team: Team | None,
) -> TrainResult:
    from sdft.jobs.training.leftovers import set_later_states_aside, sweep
    from sdft.jobs.training.resuming import events_of_state, resumed_state

    started_s = time.monotonic()
    settings = config.training
    with (
        StopRequest(settings.max_train_time) as stop_request,
        kept_awake(not settings.allow_sleep),
        _Outcome(run, command, emit) as outcome,
    ):
        sweep(run, emit)
        state = resumed_state(choice.resume, emit)
        if state is None and choice.resume is not None:
            _require_no_finished_run(run)
        if state is not None and state.path == choice.resume:
            set_later_states_aside(run, state, emit)
        recorder.open(run, state.events_bytes if state else 0)
        outputs.begin(state.path if state else None)
        for event in events_of_state(state):
            emit(event)
        unfinished = RunStatus(
            state=UNFINISHED, config_digest=digest, steps=0, epochs=0, loss=None, checkpoint=None
        )
        # Heavy: brings torch, diffusers and transformers, some 10 s.
        from sdft.jobs.training.assembly import prepare_run
        from sdft.jobs.training.team import ONLY_ONE
        from sdft.jobs.training.together_start import same_state

        team = team or ONLY_ONE
        state = same_state(state, team)
        live = prepare_run(
            config,
            run=run,
            state=state,
            emit=emit,
            events_bytes=recorder.position,
            outputs=outputs,
            team=team,
        )
        write_text(run.config_file, resolved_toml(live.config))
        write_json(run.environment_file, environment_facts())
        # Not before: a run that fails while it is prepared leaves nothing to go on with.
        run.write_status(unfinished)
        outputs.finish()
        outcome.step = live.meter.step
        emit(_run_started(live, run, command))
        try:
            with _whole_saves(live, outcome, stop_request):
                reason = live.train(stop_request)
                if reason not in (None, NO_GAIN):
                    raise _stopped(live, reason, command, emit)
                return _finished(live, run, unfinished, started_s, emit)
        finally:
            assert live.inbox is not None, "this is the main process"
            live.inbox.close()


@contextmanager
def _whole_saves(live: TrainingRun, outcome: _Outcome, asked: StopRequest) -> Iterator[None]:
    """Let what is being written when a step fails become whole before the process ends."""
    try:
        with live.team.exchanging():
            yield
    except SdftError as error:
        outcome.step = live.meter.step
        live.keeper.writer.wait()
        if isinstance(error, PeerLost) and is_started_by_sdft():
            # The program that started this one names the cause first, and asks this one to end.
            asked.wait(CAUSE_WITHIN_S)
        raise


class _Outcome:
    """Says how a run ended that did not finish, and how to go on with it."""

    def __init__(self, run: RunDir, command: str, emit: Emit) -> None:
        self._run = run
        self._command = command
        self._emit = emit
        self.step = 0

    def __enter__(self) -> _Outcome:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if error is None or isinstance(error, Interrupted | StoppedResumable):
            return
        if not isinstance(error, SdftError | KeyboardInterrupt):
            return
        resumable = any(self._run.states.glob("step*"))
        fix = f"go on from the last state with: {self._command} --resume auto" if resumable else ""
        reason = str(error) or INTERRUPTED
        self._emit(RunStopped(step=self.step, reason=reason, resumable=resumable, fix=fix))


def _require_no_finished_run(run: RunDir) -> None:
    """Check that starting anew, for want of a state, writes over no finished run.

    Raises: UserError.
    """
    status = run.read_status()
    if status is not None and status.state == FINISHED:
        raise UserError(
            what="this run is finished and left no state to go on from",
            where=str(run.path),
            fix="train on from its checkpoint as a new run; save_state_on_train_end keeps a state"
            " for the next time",
            key="finished_without_state",
        )


def _run_started(live: TrainingRun, run: RunDir, command: str) -> RunStarted:
    from sdft import __version__

    return RunStarted(
        name=run.path.stem,
        steps=live.plan.total_steps,
        epochs=live.plan.num_epochs,
        first_step=live.meter.step + 1,
        images=live.data.num_images,
        effective_batch=max(live.plan.effective_batch),
        device=str(live.networks.accelerator.device),
        model=live.networks.bundle.path.name,
        command=command,
        version=__version__,
    )


def _stopped(live: TrainingRun, reason: str, command: str, emit: Emit) -> SdftError:
    """Save a state, say that the run stopped, and return the error that ends the command."""
    progress = live.meter.progress
    live.keeper.save_rolling_state(progress)
    live.team.meet()
    fix = f"go on with: {command} --resume auto"
    emit(RunStopped(step=progress.step, reason=reason, resumable=True, fix=fix))
    kind = Interrupted if reason == INTERRUPTED else StoppedResumable
    return kind(
        what=f"stopped after step {progress.step}: {reason}",
        fix=fix,
        key="stopped",
        values={"step": progress.step, "reason": reason, "command": command},
    )


def _finished(
    live: TrainingRun, run: RunDir, unfinished: RunStatus, started_s: float, emit: Emit
) -> TrainResult:
    progress = live.meter.progress
    loss = live.meter.mean_loss()
    checkpoint = live.save_at_end()
    outputs = live.keeper.outputs
    outputs.finish()
    epochs = live.plan.num_epochs
    emit(
        RunFinished(
            steps=progress.step,
            epochs=epochs,
            loss=loss,
            checkpoint=str(checkpoint),
            duration_s=time.monotonic() - started_s,
        )
    )
    run.write_status(
        replace(
            unfinished,
            state=FINISHED,
            steps=progress.step,
            epochs=epochs,
            loss=loss,
            checkpoint=str(checkpoint),
        )
    )
    # Not before it is said, on a store too, that there is nothing left to go on with.
    outputs.finish()
    live.keeper.drop_rolling_states()
    return TrainResult(
        steps=progress.step,
        epochs=epochs,
        loss=loss,
        checkpoint=checkpoint,
        run=run.path,
        resume=live.resumed_from,
    )
