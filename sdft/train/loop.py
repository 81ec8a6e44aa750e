"""The training loop: epochs of steps, and what happens between them.

In: everything built and ready. Out: how far the run came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from sdft.train.batch import Batch, BatchMaker
from sdft.train.lr import Factor
from sdft.train.meter import Meter
from sdft.train.prefetch import prefetched
from sdft.train.sampler import Order, Step, micro_batches
from sdft.train.step import Stepper

PREFETCH_STEPS = 3
"""Steps prepared ahead: enough to bridge one slow read, few enough to cost little memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """The order and length of a run, fixed before its first step."""

    order: Order
    batch_size: Sequence[int]
    """Items a forward pass, one number a dataset."""
    total_steps: int
    num_epochs: int
    rank: int = 0
    num_processes: int = 1

    @property
    def effective_batch(self) -> Sequence[int]:
        """Return the number of items an update, one number a dataset."""
        return self.order.effective_batch

    @property
    def seed(self) -> int:
        return self.order.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class BetweenSteps:
    """What is done between updates; each is called with the meter."""

    after_step: Callable[[Meter], None]
    after_epoch: Callable[[Meter], None]
    stop_reason: Callable[[], str | None]
    """Says why the run should end before its last step, or none."""


def train(
    *,
    plan: RunPlan,
    maker: BatchMaker,
    stepper: Stepper,
    lr_factor: Factor,
    meter: Meter,
    between: BetweenSteps,
) -> str | None:
    """Do the updates that are left; return why it stopped early, or None at the end."""
    for epoch in range(meter.progress.epoch, plan.num_epochs + 1):
        steps = plan.order.epoch(epoch)
        first = meter.progress.steps_into_epoch
        due = steps.between(first, first + plan.total_steps - meter.step)
        meter.restart_clock()
        for step, batches in batches_ahead(plan, maker, due, epoch=epoch, done=meter.step):
            lr = stepper.set_lr(lr_factor(meter.step))
            outcome = stepper.update(batches)
            meter.step_done(step, lr, outcome)
            between.after_step(meter)
            reason = between.stop_reason()
            if reason and meter.step < plan.total_steps:
                return reason
        if meter.progress.steps_into_epoch == len(steps):
            meter.epoch_done()
            between.after_epoch(meter)
            reason = between.stop_reason()
            if reason and meter.step < plan.total_steps:
                return reason
    return None


def batches_ahead(
    plan: RunPlan, maker: BatchMaker, steps: Iterable[Step], *, epoch: int, done: int
) -> Iterator[tuple[Step, list[Batch]]]:
    """Yield each step with its micro-batches, prepared while the device works.

    Units: `done` is the number of updates before the first of `steps`.
    """

    def prepare(number: int, step: Step) -> tuple[Step, list[Batch]]:
        shares = micro_batches(
            step,
            batch_size=plan.batch_size[step.dataset],
            rank=plan.rank,
            num_processes=plan.num_processes,
        )
        return step, [maker.make(step, uses, epoch=epoch, step_number=number) for uses in shares]

    jobs = (partial(prepare, done + position, step) for position, step in enumerate(steps))
    return prefetched(jobs, depth=PREFETCH_STEPS)
