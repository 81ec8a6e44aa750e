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
from torch import Tensor

from sdft.errors import DataError
from sdft.events import Emit, EpochDone, StepDone
from sdft.train.sampler import Step
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
        reduce_sum: Callable[[Tensor], Tensor],
    ) -> None:
        self._progress = progress
        self._emit = emit
        self._device = device
        self._reduce_sum = reduce_sum
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
        if self._device.type == "cpu" or now_s - self._last_flush_s > FLUSH_AFTER_S:
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

    def flush(self) -> None:
        """Read the figures that are still on the device and emit their events.

        Raises: DataError where a loss is not a finite number.
        """
        pending, self._pending = self._pending, []
        self._last_flush_s = time.monotonic()
        if not pending:
            return
        no_norm = torch.full((), math.nan, device=self._device)
        norms = [no_norm if p.outcome.grad_norm is None else p.outcome.grad_norm for p in pending]
        losses = self._reduce_sum(torch.stack([p.outcome.loss for p in pending]))
        figures = torch.stack([losses, torch.stack(norms).to(losses)]).tolist()
        for one, loss_sum, norm in zip(pending, *figures, strict=True):
            self._emit_step(one, loss_sum, None if one.outcome.grad_norm is None else norm)

    def _emit_step(self, one: _Pending, loss_sum: float, grad_norm: float | None) -> None:
        num_items = len(one.step.uses)
        if not math.isfinite(loss_sum):
            raise DataError(
                what=f"the loss of step {one.number} is {loss_sum}",
                where=f"bucket {one.step.bucket[0]}x{one.step.bucket[1]}, epoch {one.epoch}",
                fix="lower learning_rate, or use mixed_precision bf16 or no instead of fp16",
            )
        self._progress = replace(
            self._progress,
            epoch_loss_sum=self._progress.epoch_loss_sum + loss_sum,
            epoch_items=self._progress.epoch_items + num_items,
        )
        self._emit(
            StepDone(
                step=one.number,
                epoch=one.epoch,
                loss=loss_sum / num_items,
                lr=one.lr,
                bucket=one.step.bucket,
                grad_norm=grad_norm,
                items=num_items,
                duration_s=round(one.duration_s, 6),
                memory_bytes=_peak_memory_bytes(self._device),
            )
        )


def _peak_memory_bytes(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
