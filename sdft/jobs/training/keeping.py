"""Writes a run's checkpoints and states between its steps, and removes those that are too old.

In: the live networks and the rules of saving. Out: files, and an event for each. The writing
itself goes on in the background; an older file goes only when the newer one was read back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sdft.events import CheckpointSaved, Emit, EventLine, FileRemoved, Notice, StateSaved
from sdft.files import flush_folder, remove
from sdft.jobs.training.outputs import Outputs
from sdft.jobs.training.saving import CheckpointWriter
from sdft.jobs.training.team import Team
from sdft.rundir import KEPT, state_name
from sdft.train.background import BackgroundWriter, SaveJob
from sdft.train.checkpoint import SaveRules, epoch_stem, file_name, step_stem
from sdft.train.meter import Meter
from sdft.train.state import (
    Identity,
    Progress,
    damage,
    finished_states,
    is_kept,
    step_of,
)
from sdft.train.state_write import StateContent, write_state

SAID = "said"
"""In a state's extras: events of files that were written before it, after its place in the events.
Its place is taken when it is copied, and files are written later in the background."""


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSource:
    """Where the content of a state comes from."""

    modules: Callable[[], Mapping[str, Mapping[str, Tensor]]]
    optimizer: Callable[[], Mapping[str, Any]]
    identity: Identity
    events_bytes: Callable[[], int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    extras: Callable[[], Mapping[str, Any]] = _nothing
    """Plain values that other parts of the run want back after a resume."""
    gather: Callable[[Any], Any] | None = None
    """Makes whole copies of tensors that are spread over the processes; all have to call it."""

    def content(self, progress: Progress) -> StateContent:
        content = StateContent(
            modules=self.modules(),
            optimizer=self.optimizer(),
            progress=progress,
            identity=self.identity,
            events_bytes=self.events_bytes(),
            settings=self.settings,
            machine=self.machine,
            extras=self.extras(),
        )
        return content if self.gather is None else content.copied_by(self.gather)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingRules:
    """When the rolling state is renewed; 0 switches a rule off."""

    every_s: float = 0.0
    every_n_steps: int = 0

    def due(self, step: int, since_s: float) -> bool:
        by_step = self.every_n_steps > 0 and step % self.every_n_steps == 0
        return by_step or (self.every_s > 0 and since_s > self.every_s)


@dataclass(kw_only=True)
class Keeper:
    """Does what the saving rules ask for after each step and epoch."""

    output_dir: Path
    output_name: str
    form: str
    states: Path
    total_steps: int
    num_epochs: int
    steps_through: Callable[[int], int]
    """Updates of the first so many epochs."""
    checkpoints: SaveRules
    state_rules: SaveRules
    """As for checkpoints, where states are saved with them."""
    rolling: RollingRules
    write_model: CheckpointWriter
    state: StateSource
    writer: BackgroundWriter
    emit: Emit
    outputs: Outputs = field(default_factory=Outputs)
    """Where what is written ends up."""
    checkpoint_every_s: float = 0.0
    """Besides the rules by steps and epochs; 0 switches it off."""
    states_with_checkpoints: bool = False
    writes: bool = True
    """Of several processes one writes; in the others nothing here does anything, but for `team`."""
    team: Team | None = None
    """The processes over which the weights are spread: each gives its part to every save."""
    agree: Callable[[Sequence[bool]], list[bool]] | None = None
    """Exchanges what is due after a step along with what else they exchange then; without, it is
    exchanged alone."""
    _last_state_s: float = field(default_factory=time.monotonic)
    _last_checkpoint_s: float = field(default_factory=time.monotonic)

    def after_step(self, meter: Meter) -> None:
        """Save what is due after an update."""
        if not self._takes_part:
            return
        step = meter.step
        saves_checkpoint = self.checkpoints.after_step(step, self.total_steps)
        saves_state = self.state_rules.after_step(step, self.total_steps)
        if self._checkpoint_time_is_up(step):
            saves_checkpoint = True
            saves_state = saves_state or self.states_with_checkpoints
        # Among steps that are left out the weights stand still, and the older state may be wanted.
        rolls = not meter.bad_steps_in_row and self.rolling.due(
            step, time.monotonic() - self._last_state_s
        )
        saves_checkpoint, saves_state, rolls = self._as_main_does(
            saves_checkpoint, saves_state, rolls, agree=self.agree
        )
        if not (saves_checkpoint or saves_state or rolls):
            return
        jobs = self._begin()
        said: list[CheckpointSaved] = []
        if saves_checkpoint:
            jobs += self._checkpoint(step_stem(self.output_name, step), meter.progress, said)
            jobs += self._step_checkpoint_dropped(step)
        if saves_state or rolls:
            jobs += self._state(meter.progress, kept=saves_state, said=said)
        if saves_state:
            jobs += self._step_state_dropped(step)
        self._submit(jobs)
        meter.restart_clock()

    @property
    def _takes_part(self) -> bool:
        return self.writes or self.team is not None

    def _as_main_does(
        self, *due: bool, agree: Callable[[Sequence[bool]], list[bool]] | None = None
    ) -> list[bool]:
        """Return what the process that writes finds due; clocks differ."""
        if self.team is None:
            return list(due)
        wishes = [one and self.writes for one in due]
        if agree is not None:
            return agree(wishes)
        return [bool(one) for one in self.team.maxima(wishes)]

    def _submit(self, jobs: list[SaveJob]) -> None:
        if self.writes:
            self.writer.submit(jobs)

    def _checkpoint_time_is_up(self, step: int) -> bool:
        """Tell whether a checkpoint is due by the clock; never at the last step."""
        since_s = time.monotonic() - self._last_checkpoint_s
        return 0 < self.checkpoint_every_s < since_s and step < self.total_steps

    def after_epoch(self, meter: Meter) -> None:
        """Save what is due after an epoch; `meter` already counts the next one."""
        if not self._takes_part:
            return
        epoch = meter.progress.epoch - 1
        jobs = self._begin()
        said: list[CheckpointSaved] = []
        if self.checkpoints.after_epoch(epoch, self.num_epochs):
            jobs += self._checkpoint(epoch_stem(self.output_name, epoch), meter.progress, said)
            jobs += self._epoch_checkpoint_dropped(epoch)
        if self.state_rules.after_epoch(epoch, self.num_epochs):
            jobs += self._state(meter.progress, kept=True, said=said)
            jobs += self._epoch_state_dropped(epoch)
        if jobs:
            self._submit(jobs)
            meter.restart_clock()

    def catch_up(self, progress: Progress) -> None:
        """Remove what should be gone at this place, for a run that died before it came to that."""
        if not self.writes:
            return
        step, epoch = progress.step, progress.epoch - 1
        jobs = []
        if self.checkpoints.after_step(step, self.total_steps):
            jobs += self._step_checkpoint_dropped(step)
        if self.state_rules.after_step(step, self.total_steps):
            jobs += self._step_state_dropped(step)
        if progress.steps_into_epoch == 0 and epoch > 0:
            if self.checkpoints.after_epoch(epoch, self.num_epochs):
                jobs += self._epoch_checkpoint_dropped(epoch)
            if self.state_rules.after_epoch(epoch, self.num_epochs):
                jobs += self._epoch_state_dropped(epoch)
        self.writer.submit(jobs)
        self.writer.wait()

    def save_checkpoint(self, stem: str, progress: Progress) -> Path:
        """Write a checkpoint under the file name that its form asks for, and wait for it."""
        if self._takes_part:
            self._submit(self._checkpoint(stem, progress))
            self.writer.wait()
        return self.outputs.shown(self.output_dir / file_name(stem, self.form))

    def replace_checkpoint(self, stem: str, progress: Progress) -> None:
        """Write a checkpoint in the background; an older one of that name is there until then."""
        if self._takes_part:
            self._submit(self._checkpoint(stem, progress))

    def save_rolling_state(self, progress: Progress) -> Path:
        """Write a state, then remove the rolling one before it; wait for both."""
        return self.save_state(progress, kept=False)

    def save_state(self, progress: Progress, *, kept: bool = True) -> Path:
        """Write a state and wait for it; a `kept` one is not removed by a rolling one."""
        if self._takes_part:
            self.writer.wait()
            self._submit(self._state(progress, kept=kept, said=[]))
            self.writer.wait()
        return self.states / state_name(progress.step)

    def drop_rolling_states(self) -> None:
        """Remove the states that nobody asked for; those of a finished run are of no use."""
        for folder in finished_states(self.states):
            if not is_kept(folder):
                self._remove(folder)
        self.outputs.drop_rolling_states()

    def _begin(self) -> list[SaveJob]:
        """Let the save before this one end: what it says belongs before the place of this one."""
        self.writer.wait()
        return []

    def _checkpoint(
        self, stem: str, progress: Progress, said: list[CheckpointSaved] | None = None
    ) -> list[SaveJob]:
        """Return what writes a checkpoint; what it says is added to `said`."""
        self._last_checkpoint_s = time.monotonic()
        path = self.output_dir / file_name(stem, self.form)

        def write(content: Any) -> None:
            started_s = time.monotonic()
            size_bytes = self.write_model(path, content)
            flush_folder(path.parent)

            def tell() -> None:
                event = CheckpointSaved(
                    step=progress.step,
                    epoch=progress.epoch,
                    path=str(self.outputs.shown(path)),
                    size_bytes=size_bytes,
                    duration_s=time.monotonic() - started_s,
                )
                self.emit(event)
                if said is not None:
                    said.append(event)

            self.outputs.saved(path, tell)

        content = self.write_model.content(progress)
        return [
            SaveJob(
                name=stem,
                content=content,
                num_bytes=content.num_bytes,
                copied=lambda live: live.copied(),
                write=write,
            )
        ]

    def _state(
        self, progress: Progress, *, kept: bool, said: list[CheckpointSaved]
    ) -> list[SaveJob]:
        """Return what writes a state, unless a whole one of this step is there.

        `said` is known when it is written: the same thread writes the checkpoints before it.
        """
        self._last_state_s = time.monotonic()
        folder = self.states / state_name(progress.step)
        [is_there] = self._as_main_does(self.writes and self._is_whole(folder))
        if is_there:
            return [self._job(lambda: self._keep(folder))] if kept else []

        def write(content: StateContent) -> None:
            started_s = time.monotonic()
            told = {SAID: [EventLine.write(event, time.time()) for event in said]}
            content = replace(content, extras={**content.extras, **told})
            size_bytes = write_state(folder, content, kept=kept)

            def tell() -> None:
                self.emit(
                    StateSaved(
                        step=progress.step,
                        epoch=progress.epoch,
                        path=str(self.outputs.shown(folder)),
                        size_bytes=size_bytes,
                        duration_s=time.monotonic() - started_s,
                    )
                )
                for old in finished_states(self.states):
                    if not is_kept(old) and step_of(old) < progress.step:
                        self._remove(old)
                self.outputs.drop_rolling_states(progress.step)

            self.outputs.saved(folder, tell)

        content = self.state.content(progress)
        return [
            SaveJob(
                name=folder.name,
                content=content,
                num_bytes=0 if content.is_copy else content.num_bytes,
                copied=lambda live: live.copied(),
                write=write,
            )
        ]

    def _is_whole(self, folder: Path) -> bool:
        """Tell whether a state is there; a damaged one is said and removed."""
        if not folder.exists():
            return False
        problem = damage(folder)
        if problem:
            message = f"{folder}: {problem}; replaced"
            self.emit(Notice(severity="warning", topic="state", message=message))
            remove(folder)
        return not problem

    def _step_checkpoint_dropped(self, step: int) -> list[SaveJob]:
        return self._checkpoint_dropped(step_stem, self.checkpoints.step_to_remove(step))

    def _epoch_checkpoint_dropped(self, epoch: int) -> list[SaveJob]:
        return self._checkpoint_dropped(epoch_stem, self.checkpoints.epoch_to_remove(epoch))

    def _checkpoint_dropped(
        self, stem: Callable[[str, int], str], number: int | None
    ) -> list[SaveJob]:
        if number is None:
            return []
        path = self.output_dir / file_name(stem(self.output_name, number), self.form)
        return [self._job(lambda: self._remove(path))]

    def _step_state_dropped(self, step: int) -> list[SaveJob]:
        return self._state_dropped(self.state_rules.step_to_remove(step))

    def _epoch_state_dropped(self, epoch: int) -> list[SaveJob]:
        old = self.state_rules.epoch_to_remove(epoch)
        return self._state_dropped(None if old is None else self.steps_through(old))

    def _state_dropped(self, step: int | None) -> list[SaveJob]:
        if step is None:
            return []
        folder = self.states / state_name(step)
        return [self._job(lambda: self._remove(folder))]

    def _job(self, action: Callable[[], None]) -> SaveJob:
        return SaveJob(
            name="", content=None, num_bytes=0, copied=lambda _: None, write=lambda _: action()
        )

    def _remove(self, path: Path) -> None:
        was_here = path.exists()
        try:
            remove(path)
        except OSError as error:
            # What is too old takes room; that is no reason to end a training.
            message = f"{path} is no longer needed and could not be removed: {error}"
            self.emit(Notice(severity="warning", topic="unfinished", message=message))
            return
        if self.outputs.removed(path) or was_here:
            self.emit(FileRemoved(path=str(self.outputs.shown(path))))

    def _keep(self, folder: Path) -> None:
        # An empty file is whole at once.
        (folder / KEPT).touch()
        self.outputs.saved(folder / KEPT, lambda: None)
