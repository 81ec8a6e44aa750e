"""Draws the sample prompts while a run trains: at first, every so many steps, epochs or minutes.

In: the live networks, the requests, the rules. Out: PNG files and an event for each, an index and
a contact sheet. Nothing of the training changes: weights, gradients and generators stay as they
are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.nn import Module

from sdft.config.training import TrainingSettings
from sdft.events import Emit, Notice, SampleSaved, StageFinished, StageStarted
from sdft.jobs.sample_files import (
    Entry,
    parameters_of,
    read_index,
    save_picture,
    write_index,
    write_sheet,
)
from sdft.jobs.training.drawing import Drawer, resting
from sdft.train.meter import Meter
from sdft.train.preview import SampleRequest
from sdft.train.state import Progress

_STAGE = "samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRules:
    """When to draw; none switches a rule off."""

    at_first: bool = False
    every_n_steps: int | None = None
    every_n_epochs: int | None = None
    """Wins over steps, as in sd-scripts."""
    every_s: float | None = None

    @classmethod
    def of(cls, settings: TrainingSettings) -> SampleRules:
        minutes = settings.sample_every_n_minutes
        return cls(
            at_first=settings.sample_at_first,
            every_n_steps=None if settings.sample_every_n_epochs else settings.sample_every_n_steps,
            every_n_epochs=settings.sample_every_n_epochs,
            every_s=None if minutes is None else 60 * minutes,
        )


@dataclass(frozen=True, slots=True, order=True)
class _Drawn:
    """One picture."""

    number: int
    """Of its prompt, from 0."""
    is_finite: bool = field(compare=False)
    """Whether its latents are numbers."""
    rgb_HWC: np.ndarray = field(compare=False)


@dataclass(kw_only=True)
class Sampling:
    """Draws when the rules ask for it, and when somebody does."""

    requests: Sequence[SampleRequest]
    rules: SampleRules
    drawer: Drawer
    modules: tuple[Module, ...]
    """The networks that draw; they rest meanwhile."""
    folder: Path
    name: str
    """Begins every file name."""
    accelerator: Accelerator
    emit: Emit
    weights: Callable[[], AbstractContextManager[None]] = nullcontext
    """While its context is open, the networks hold the weights to draw with."""
    in_step: bool = False
    """Whether every process draws every picture, because the weights are spread over all."""
    _last_s: float = field(default_factory=time.monotonic)

    def at_first(self, meter: Meter) -> None:
        """Draw before the first step of a run, if asked for."""
        if self.rules.at_first and meter.step == 0:
            self.draw_now(meter)

    def after_step(self, meter: Meter) -> None:
        every, every_s = self.rules.every_n_steps, self.rules.every_s
        by_time = every_s is not None and time.monotonic() - self._last_s >= every_s
        # Processes do not see the same clock, and all have to draw together.
        if every_s is not None:
            by_time = _said_by_main(by_time, self.accelerator)
        if by_time or (every is not None and meter.step % every == 0):
            self.draw_now(meter)

    def after_epoch(self, meter: Meter) -> None:
        """Draw after an epoch if due; `meter` already counts the next one."""
        every = self.rules.every_n_epochs
        epoch = meter.progress.epoch - 1
        if every is not None and epoch % every == 0:
            self.draw_now(meter, epoch_done=epoch)

    def draw_now(self, meter: Meter, *, epoch_done: int | None = None) -> int:
        """Draw every prompt and return how many pictures there are.

        A device without room for it is said, and the run goes on without these pictures.
        """
        progress = meter.progress
        started_s = time.monotonic()
        self._say(StageStarted(stage=_STAGE, total=len(self.requests), unit="pictures"))
        drawn: list[_Drawn] | None = None
        try:
            drawn = self._draw()
        except torch.OutOfMemoryError:
            if self.in_step:
                # The others wait for this process in the middle of a picture.
                raise
            torch.cuda.empty_cache()
        # Files are the main process' business alone: another machine may not see the folder.
        parts = gather_object([drawn]) if self._num_processes > 1 else [drawn]
        of_all = [one for part in parts for one in part or ()]
        if None in parts:
            message = "the device has no room for the sample pictures; the run goes on without"
            self._say(Notice(severity="warning", topic="samples", message=message))
        elif self.accelerator.is_main_process:
            for one in sorted(of_all):
                self._save(one, progress, epoch_done)
            self._list(progress, epoch_done)
        duration_s = time.monotonic() - started_s
        self._say(StageFinished(stage=_STAGE, done=len(self.requests), duration_s=duration_s))
        self._last_s = time.monotonic()
        meter.after_other_work()
        return len(self.requests)

    def _draw(self) -> list[_Drawn]:
        """Draw this process' share of the prompts; return what it is to hand in."""
        share = range(self.accelerator.process_index, len(self.requests), self._num_processes)
        if self.in_step:
            share = range(len(self.requests))
        with resting(*self.modules), self.weights():
            drawn = self.drawer.draw_all([self.requests[number] for number in share])
            found = [
                _Drawn(number, bool(torch.isfinite(latents_1CHW).all()), rgb_HWC)
                for number, (latents_1CHW, rgb_HWC) in zip(share, drawn, strict=True)
            ]
        return [] if self.in_step and not self.accelerator.is_main_process else found

    def _save(self, drawn: _Drawn, progress: Progress, epoch_done: int | None) -> None:
        number = drawn.number
        request = self.requests[number]
        if not drawn.is_finite:
            message = (
                f"the sample of prompt {number + 1} at step {progress.step} holds values that are"
                " no numbers; they are drawn black"
            )
            self.emit(Notice(severity="warning", topic="samples", message=message))
        path = self.folder / self._file(number, progress, epoch_done)
        save_picture(path, drawn.rgb_HWC, parameters_of(request, step=progress.step))

    def _list(self, progress: Progress, epoch_done: int | None) -> None:
        """Say what was drawn, and renew the index and the sheet."""
        entries = [*read_index(self.folder, up_to_step=progress.step)]
        entries = [one for one in entries if one.step < progress.step]
        epoch = progress.epoch if epoch_done is None else epoch_done
        for number, request in enumerate(self.requests):
            name = self._file(number, progress, epoch_done)
            path = self.folder / name
            if not path.exists():
                continue
            self.emit(
                SampleSaved(
                    step=progress.step, path=str(path), prompt=request.prompt, seed=request.seed
                )
            )
            entries.append(
                Entry(
                    step=progress.step,
                    epoch=epoch,
                    number=number,
                    prompt=request.prompt,
                    seed=request.seed,
                    file=name,
                )
            )
        write_index(self.folder, entries)
        write_sheet(self.folder, entries)

    def _file(self, number: int, progress: Progress, epoch_done: int | None) -> str:
        """Return sd-scripts' name without its date: a resumed run draws the same file again."""
        when = f"{progress.step:06d}" if epoch_done is None else f"e{epoch_done:06d}"
        return f"{self.name}_{when}_{number:02d}_{self.requests[number].seed}.png"

    @property
    def _num_processes(self) -> int:
        return int(self.accelerator.num_processes)

    def _say(self, event: StageStarted | StageFinished | Notice) -> None:
        if self.accelerator.is_main_process:
            self.emit(event)


def _said_by_main(answer: bool, accelerator: Accelerator) -> bool:
    """Return what the main process answered, in every process."""
    if accelerator.num_processes == 1:
        return answer
    said = torch.tensor(float(answer and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(said, reduction="sum").item())
