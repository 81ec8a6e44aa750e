"""Measures held-out images while a run trains, and acts on what it sees if asked to.

In: the live networks, two sets of images, the rules. Out: events, a warning where the model learns
its images by heart, the best checkpoint, the wish to stop. Nothing of the training changes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.nn import Module

from sdft.config.training import TrainingSettings
from sdft.errors import DataError
from sdft.events import Emit, Notice, StageFinished, StageStarted, ValidationDone
from sdft.files import write_json
from sdft.jobs.training.drawing import resting
from sdft.jobs.training.stopping import NO_GAIN
from sdft.train.meter import Meter
from sdft.train.validation import Examiner, LossesOf
from sdft.train.verdict import (
    Measurement,
    Parting,
    band,
    best,
    gap,
    mean,
    news_of_parting,
    num_without_gain,
)

_STAGE = "validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRules:
    """When to measure, and what follows."""

    every_n_steps: int | None
    every_n_epochs: int | None
    keep_best: bool
    stop_after: int | None

    @classmethod
    def of(cls, settings: TrainingSettings) -> ValidationRules:
        steps, epochs = settings.validate_every_n_steps, settings.validate_every_n_epochs
        return cls(
            every_n_steps=steps,
            every_n_epochs=1 if steps is None and epochs is None else epochs,
            keep_best=settings.save_best_validation,
            stop_after=settings.stop_after_n_validations,
        )


@dataclass(kw_only=True)
class Validating:
    """Remembers all measurements of the run, those before a resume included."""

    rules: ValidationRules
    held_out: Examiner
    train: Examiner
    losses_of: LossesOf
    modules: tuple[Module, ...]
    """The networks that are measured; they rest meanwhile."""
    weights: Callable[[], AbstractContextManager[None]] = nullcontext
    """While its context is open, the networks hold the weights that a checkpoint would have."""
    record: Path
    """Where the measurements are kept for a resume."""
    identity: str
    """Of what is measured; another one begins a new history."""
    save_best: Callable[[Meter], None]
    accelerator: Accelerator
    emit: Emit
    in_step: bool = False
    """Whether the processes have to run the same number of passes: weights are spread over them."""
    history: list[Measurement] = field(default_factory=list)

    def at_first(self, meter: Meter) -> None:
        """Go on from the measurements of a resumed run, or measure the model as it came."""
        found = [_read(self.record, self.identity, up_to_step=meter.step)]
        if self.accelerator.num_processes > 1:
            # The others may look when the main process has written its first measurement.
            broadcast_object_list(found)
        self.history = found[0]
        if not self.history:
            self.measure_now(meter, epoch=meter.progress.epoch)

    def after_step(self, meter: Meter) -> None:
        every = self.rules.every_n_steps
        if every is not None and meter.step % every == 0:
            self.measure_now(meter, epoch=meter.progress.epoch)

    def after_epoch(self, meter: Meter) -> None:
        """Measure after an epoch if due; `meter` already counts the next one."""
        every = self.rules.every_n_epochs
        epoch = meter.progress.epoch - 1
        if every is not None and epoch % every == 0:
            self.measure_now(meter, epoch=epoch)

    def stop_reason(self) -> str | None:
        """Return why the run should end, where that was asked for."""
        limit = self.rules.stop_after
        return NO_GAIN if limit is not None and num_without_gain(self.history) >= limit else None

    def measure_now(self, meter: Meter, *, epoch: int) -> None:
        """Measure both sets, unless this very step was measured already."""
        step = meter.progress.step
        if self.history and self.history[-1].step == step:
            return
        started_s = time.monotonic()
        num_images = self.held_out.num_images + self.train.num_images
        self._say(StageStarted(stage=_STAGE, total=num_images, unit="images"))
        with resting(*self.modules), self.weights():
            held_out_NT = self._measure(self.held_out)
            train_NT = self._measure(self.train)
        measured = Measurement(
            step=step,
            epoch=epoch,
            held_out=tuple(held_out_NT.mean(dim=1).tolist()),
            train=tuple(train_NT.mean(dim=1).tolist()),
            by_timestep=tuple(held_out_NT.mean(dim=0).tolist()),
        )
        duration_s = time.monotonic() - started_s
        self._say(StageFinished(stage=_STAGE, done=num_images, duration_s=duration_s))
        self._take(measured, meter, duration_s)
        meter.after_other_work()

    def _measure(self, examiner: Examiner) -> Tensor:
        losses_NT = examiner.measure(
            self.losses_of,
            rank=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            in_step=self.in_step,
            reduce_sum=lambda losses: self.accelerator.reduce(losses, reduction="sum"),
            device=self.accelerator.device,
        )
        if not torch.isfinite(losses_NT).all():
            raise DataError(
                what="the loss of a validation image is no finite number",
                fix="lower learning_rate, or use mixed_precision bf16 or no instead of fp16",
            )
        return losses_NT

    def _take(self, measured: Measurement, meter: Meter, duration_s: float) -> None:
        """Add a measurement, say it, and do what follows from it."""
        self.history.append(measured)
        is_best = best(self.history) is measured
        if self.accelerator.is_main_process:
            self._record(measured, is_best=is_best, duration_s=duration_s)
        if is_best and self.rules.keep_best:
            self.save_best(meter)

    def _record(self, measured: Measurement, *, is_best: bool, duration_s: float) -> None:
        write_json(
            self.record,
            {"identity": self.identity, "measurements": [asdict(one) for one in self.history]},
            indent=None,
        )
        self.emit(_event(measured, self.held_out.timesteps, is_best, duration_s))
        found = news_of_parting(self.history)
        if found is not Parting.NONE:
            self.emit(_gap_notice(self.history, found))

    def _say(self, event: StageStarted | StageFinished) -> None:
        if self.accelerator.is_main_process:
            self.emit(event)


def _event(
    measured: Measurement, timesteps: Sequence[int], is_best: bool, duration_s: float
) -> ValidationDone:
    ends = band(measured.held_out)
    return ValidationDone(
        step=measured.step,
        epoch=measured.epoch,
        loss=mean(measured.held_out),
        train_loss=mean(measured.train),
        loss_low=None if ends is None else ends[0],
        loss_high=None if ends is None else ends[1],
        images=len(measured.held_out),
        timesteps=tuple(timesteps),
        losses=measured.by_timestep,
        is_best=is_best,
        duration_s=round(duration_s, 3),
    )


def _gap_notice(history: Sequence[Measurement], found: Parting) -> Notice:
    size = math.expm1(gap(history[0], history[-1]).size)
    message = (
        f"since step {history[0].step} held-out images have come to be {size:.0%} worse beside"
        " training images: the model "
    )
    if found is Parting.BEGINS:
        message += "begins to learn its images by heart, though held-out images still gain"
        return Notice(severity="info", topic="gap", message=message)
    message += (
        "learns its images by heart; train fewer steps, at a lower learning_rate, or on more images"
    )
    return Notice(severity="warning", topic="gap", message=message)


def _read(record: Path, identity: str, *, up_to_step: int) -> list[Measurement]:
    """Return the measurements that a run made up to a step; a damaged record counts as none."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        if content["identity"] != identity:
            return []
        found = [_measurement(row) for row in content["measurements"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [one for one in found if one.step <= up_to_step]


def _measurement(row: Mapping[str, Any]) -> Measurement:
    return Measurement(
        step=row["step"],
        epoch=row["epoch"],
        held_out=tuple(row["held_out"]),
        train=tuple(row["train"]),
        by_timestep=tuple(row["by_timestep"]),
    )
