"""Writes a run's checkpoints and states between its steps, and removes those that are too old.

In: the live networks and the rules of saving. Out: files, and an event for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from sdft.events import CheckpointSaved, Emit, FileRemoved, Notice, StateSaved
from sdft.files import remove
from sdft.train.checkpoint import SaveRules, epoch_stem, file_name, step_stem
from sdft.train.meter import Meter
from sdft.train.state import Identity, Progress, damage, finished_states, save_state, state_name


class WriteModel(Protocol):
    """Writes the networks as they are now to a path; returns the size in bytes."""

    def __call__(self, path: Path, progress: Progress) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSource:
    """Where the content of a state comes from."""

    modules: Callable[[], Mapping[str, Mapping[str, Tensor]]]
    optimizer: Callable[[], Mapping[str, Any]]
    identity: Identity
    events_bytes: Callable[[], int]


@dataclass(kw_only=True)
class Keeper:
    """Does what the saving rules ask for after each step and epoch."""

    output_dir: Path
    output_name: str
    form: str
    states: Path
    total_steps: int
    num_epochs: int
    checkpoints: SaveRules
    state_rules: SaveRules
    """As for checkpoints, where states are saved with them."""
    rolling_state_s: float
    """A state is renewed after so many seconds; 0 never does."""
    write_model: WriteModel
    state: StateSource
    emit: Emit
    _last_state_s: float = field(default_factory=time.monotonic)
    _asked: set[int] = field(default_factory=set)
    """Steps whose states the user asked to keep."""

    def after_step(self, meter: Meter) -> None:
        """Save what is due after an update."""
        step = meter.step
        if self.checkpoints.after_step(step, self.total_steps):
            self.save_checkpoint(step_stem(self.output_name, step), meter.progress)
            self._drop_checkpoint(step_stem, self.checkpoints.step_to_remove(step))
        if self.state_rules.after_step(step, self.total_steps):
            self._keep_state(meter.progress)
            self._drop_state(self.state_rules.step_to_remove(step))
        elif self.rolling_state_s and time.monotonic() - self._last_state_s > self.rolling_state_s:
            self.save_rolling_state(meter.progress)
        meter.restart_clock()

    def after_epoch(self, meter: Meter) -> None:
        """Save what is due after an epoch; `meter` already counts the next one."""
        epoch = meter.progress.epoch - 1
        if self.checkpoints.after_epoch(epoch, self.num_epochs):
            self.save_checkpoint(epoch_stem(self.output_name, epoch), meter.progress)
            self._drop_checkpoint(epoch_stem, self.checkpoints.epoch_to_remove(epoch))
        if self.state_rules.after_epoch(epoch, self.num_epochs):
            self._keep_state(meter.progress)
            old = self.state_rules.epoch_to_remove(epoch)
            if old is not None:
                self._drop_state(meter.step * old // epoch)
        meter.restart_clock()

    def save_checkpoint(self, stem: str, progress: Progress) -> Path:
        """Write a checkpoint under the file name that its form asks for."""
        path = self.output_dir / file_name(stem, self.form)
        started_s = time.monotonic()
        size_bytes = self.write_model(path, progress)
        self.emit(
            CheckpointSaved(
                step=progress.step,
                epoch=progress.epoch,
                path=str(path),
                size_bytes=size_bytes,
                duration_s=time.monotonic() - started_s,
            )
        )
        return path

    def save_rolling_state(self, progress: Progress) -> Path:
        """Write a state and then remove the rolling one before it."""
        previous = [p for p in finished_states(self.states) if int(p.name[4:]) not in self._asked]
        folder = self.save_state(progress)
        for old in previous:
            if old != folder:
                self._remove(old)
        return folder

    def save_state(self, progress: Progress) -> Path:
        """Write a state, unless a whole one of this step is there."""
        folder = self.states / state_name(progress.step)
        self._last_state_s = time.monotonic()
        if folder.exists():
            problem = damage(folder)
            if not problem:
                return folder
            self.emit(
                Notice(severity="warning", topic="state", message=f"{folder}: {problem}; replaced")
            )
            remove(folder)
        started_s = time.monotonic()
        size_bytes = save_state(
            folder,
            modules=self.state.modules(),
            optimizer=self.state.optimizer(),
            progress=progress,
            identity=self.state.identity,
            events_bytes=self.state.events_bytes(),
        )
        self.emit(
            StateSaved(
                step=progress.step,
                epoch=progress.epoch,
                path=str(folder),
                size_bytes=size_bytes,
                duration_s=time.monotonic() - started_s,
            )
        )
        return folder

    def _keep_state(self, progress: Progress) -> None:
        self._asked.add(progress.step)
        self.save_state(progress)

    def _drop_state(self, step: int | None) -> None:
        if step is not None and step in self._asked:
            self._asked.discard(step)
            self._remove(self.states / state_name(step))

    def _drop_checkpoint(self, stem: Callable[[str, int], str], number: int | None) -> None:
        if number is not None:
            self._remove(self.output_dir / file_name(stem(self.output_name, number), self.form))

    def _remove(self, path: Path) -> None:
        if path.exists():
            remove(path)
            self.emit(FileRemoved(path=str(path)))
