"""Keeps count of a run and says how it goes.

Losses stay on the device until they are asked for: reading one in every step would make the
device wait. `flush` reads all that are due in one transfer and emits their events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sdft.events import Emit, EpochDone, Notice, SettingChosen, StepDone
from sdft.train.guard import bad_step_error, cause_of, is_spike, names, remembered
from sdft.train.memory_watch import MemoryWatch
from sdft.train.sampler import Step, Use
from sdft.train.spill import SpillWatch
from sdft.train.state import Progress
from sdft.train.step import StepOutcome

FLUSH_AFTER_S = 0.5
"""How old a figure may become before it is read; a person sees no difference."""


@dataclass(frozen=True, slots=True)
class _Pending:
    step: Step
    number: int
    epoch: int
    lr: float
    outcome: StepOutcome
    duration_s: float


class Meter:
    """Owns the run's Progress; the only place that changes it."""

    def __init__(
        self,
        progress: Progress,
        *,
        emit: Emit,
        device: torch.device,
        name_of: Callable[[Use], str] = lambda use: f"item {use.placement}",
        bad_weight: Callable[[], str] = lambda: "",
        stops_at_bad_steps: bool = True,
        judges: bool = True,
        gradients_may_overflow: bool = False,
        spill: SpillWatch | None = None,
        memory: MemoryWatch | None = None,
    ) -> None:
        """Go on counting from `progress`.

        `name_of` and `bad_weight` are asked only when a step's figures are no numbers. With
        `gradients_may_overflow`, as under a loss scaler, a gradient that is no number is nothing.
        Of several processes one `judges`: all see the same figures, but read them at times of
        their own, and the first to raise would keep the others from saying why.
        """
        self._progress = progress
        self._emit = emit
        self._device = device
        self._name_of = name_of
        self._bad_weight = bad_weight
        self._stops = stops_at_bad_steps
        self._judges = judges
        self._gradients_may_overflow = gradients_may_overflow
        self._spill = spill
        self._memory = memory
        self._cut_at_step: int | None = None
        self._pending: list[_Pending] = []
        self._last_flush_s = time.monotonic()
        self._last_step_s = self._last_flush_s

    @property
    def progress(self) -> Progress:
        """The count after the last finished update, its losses included."""
        self.flush()
        return self._progress

    @property
    def step(self) -> int:
        """Updates done; does not wait for the device."""
        return self._progress.step

    def step_done(self, step: Step, lr: float, outcome: StepOutcome) -> None:
        """Count one update."""
        now_s = time.monotonic()
        self._progress = replace(
            self._progress,
            step=self._progress.step + 1,
            steps_into_epoch=self._progress.steps_into_epoch + 1,
        )
        self._pending.append(
            _Pending(
                step=step,
                number=self._progress.step,
                epoch=self._progress.epoch,
                lr=lr,
                outcome=outcome,
                duration_s=now_s - self._last_step_s,
            )
        )
        self._last_step_s = now_s
        due = now_s - self._last_flush_s > FLUSH_AFTER_S
        if due or self._device.type == "cpu" or not outcome.applied:
            self.flush()

    def epoch_done(self) -> None:
        """Close the epoch: its mean loss is said and the next one begins."""
        self.flush()
        mean_loss = self.mean_loss()
        self._emit(EpochDone(epoch=self._progress.epoch, step=self._progress.step, loss=mean_loss))
        self._progress = replace(
            self._progress,
            epoch=self._progress.epoch + 1,
            steps_into_epoch=0,
            epoch_loss_sum=0.0,
            epoch_items=0,
            last_epoch_loss=mean_loss,
        )

    def use_micro_batches(self, sizes: tuple[int, ...]) -> None:
        """Say and remember the items a forward pass, one number a dataset, for what is to come."""
        self.flush()
        self._cut_at_step = self._progress.step
        self._progress = replace(self._progress, micro_batches=sizes)
        reason = "the device has no room for more images at once; the gradient stays the same"
        self._emit(SettingChosen(name="images a forward pass", value=list(sizes), reason=reason))

    @property
    def micro_batches(self) -> tuple[int, ...]:
        """What `use_micro_batches` set, or nothing; does not wait for the device."""
        return self._progress.micro_batches

    @property
    def bad_steps_in_row(self) -> int:
        """Updates left out one after the other; does not wait for the device."""
        return self._progress.bad_steps_in_row

    @property
    def was_cut_at_this_step(self) -> bool:
        """Whether a lack of memory has made the micro-batches smaller for this very step."""
        return self._cut_at_step == self._progress.step

    def rolled_back(self) -> None:
        """Count a return to earlier weights; the place in the data stays."""
        self._progress = replace(
            self._progress,
            bad_steps_in_row=0,
            num_rollbacks=self._progress.num_rollbacks + 1,
            recent_losses=(),
        )

    def mean_loss(self) -> float:
        """Return the mean loss of the epoch's items so far, or of the last epoch before any."""
        self.flush()
        if self._progress.epoch_items:
            return self._progress.epoch_loss_sum / self._progress.epoch_items
        last = self._progress.last_epoch_loss
        return math.nan if last is None else last

    def restart_clock(self) -> None:
        """Leave the time that a save or a sample took out of the next step's duration."""
        self._last_step_s = time.monotonic()

    def after_other_work(self) -> None:
        """Leave out what something else took of the device: samples, or images held out."""
        self.restart_clock()
        if self._memory is not None:
            self._memory.stop()

    def flush(self) -> None:
        """Read the figures that are still on the device and emit their events.

        Raises: DataError where a loss or a gradient is no number and such steps end the run.
        """
        pending, self._pending = self._pending, []
        self._last_flush_s = time.monotonic()
        if not pending:
            return
        no_norm = torch.full((), math.nan, device=self._device)
        norms = [no_norm if p.outcome.grad_norm is None else p.outcome.grad_norm for p in pending]
        losses = torch.stack([p.outcome.loss for p in pending])
        figures = torch.stack([losses, torch.stack(norms).to(losses)]).tolist()
        if self._spill is not None:
            self._spill.after_step(pending[-1].duration_s)
        for one, loss_sum, norm in zip(pending, *figures, strict=True):
            self._emit_step(one, loss_sum, None if one.outcome.grad_norm is None else norm)

    def _emit_step(self, one: _Pending, loss_sum: float, grad_norm: float | None) -> None:
        num_items = len(one.step.uses)
        loss = loss_sum / num_items
        overflow = grad_norm is not None and not math.isfinite(grad_norm)
        if not math.isfinite(loss_sum) or (overflow and not self._gradients_may_overflow):
            self._bad_step(one, loss, grad_norm)
            return
        self._name_spike(one, loss)
        memory_bytes = _peak_memory_bytes(self._device)
        if self._memory is not None and memory_bytes is not None:
            self._memory.after_step(one.step.bucket, memory_bytes)
        self._progress = replace(
            self._progress,
            epoch_loss_sum=self._progress.epoch_loss_sum + loss_sum,
            epoch_items=self._progress.epoch_items + num_items,
            recent_losses=remembered(self._progress.recent_losses, loss),
            bad_steps_in_row=0,
        )
        self._emit(
            StepDone(
                step=one.number,
                epoch=one.epoch,
                loss=loss,
                lr=one.lr,
                bucket=one.step.bucket,
                grad_norm=None if overflow else grad_norm,
                items=num_items,
                duration_s=round(one.duration_s, 6),
                memory_bytes=memory_bytes,
            )
        )

    def _bad_step(self, one: _Pending, loss: float, grad_norm: float | None) -> None:
        """Stop, or count a step whose figures are no numbers.

        Raises: DataError where such a step ends the run, or where its update was made already.
        """
        if not self._judges:
            self._count_left_out()
            return
        cause = cause_of(
            one.step,
            one.outcome,
            loss=loss,
            grad_norm=grad_norm,
            name_of=self._name_of,
            bad_weight=self._bad_weight,
        )
        if self._stops or one.outcome.applied:
            raise bad_step_error(one.number, one.step, one.epoch, cause)
        self._count_left_out()
        message = f"step {one.number} is left out: {cause}"
        self._emit(Notice(severity="warning", topic="bad step", message=message))

    def _count_left_out(self) -> None:
        self._progress = replace(
            self._progress,
            steps_left_out=self._progress.steps_left_out + 1,
            bad_steps_in_row=self._progress.bad_steps_in_row + 1,
        )

    def _name_spike(self, one: _Pending, loss: float) -> None:
        if is_spike(loss, self._progress.recent_losses):
            images = names(one.step.uses, self._name_of)
            message = f"the loss of step {one.number} jumps to {loss:.4g}; images: {images}"
            self._emit(Notice(severity="warning", topic="spike", message=message))


def _peak_memory_bytes(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
