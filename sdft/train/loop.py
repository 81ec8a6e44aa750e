"""The training loop: epochs of steps, and what happens between them.

In: everything built and ready. Out: how far the run came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sdft.train.batch import Batch, BatchMaker, Sender
from sdft.train.latents import Remark
from sdft.train.lr import Factor
from sdft.train.meter import Meter
from sdft.train.out_of_memory import free_what_is_left, is_out_of_memory, smaller
from sdft.train.prefetch import prefetched
from sdft.train.sampler import EpochSteps, Order, Step, micro_batches
from sdft.train.step import Stepper

PREFETCH_STEPS = 3
"""Steps prepared ahead: enough to bridge one slow read, few enough to cost little memory."""

MAX_PREFETCH_STEPS = 64
"""At one small picture a step this keeps 32 processes busy with less than 100 MB."""


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
    say: Callable[[Sequence[Remark]], None] = lambda remarks: None,
) -> str | None:
    """Do the updates that are left; return why it stopped early, or None at the end.

    `say` hears what is to be said of a batch's images, before it is trained on.

    Raises: DataError where a step's figures are no numbers; EnvironmentFault where the device has
        no room for a step, even with smaller micro-batches.
    """
    send = Sender(stepper.accelerator.device)
    for epoch in range(meter.progress.epoch, plan.num_epochs + 1):
        steps = plan.order.epoch(epoch)
        meter.restart_clock()
        for step, batches in batches_ahead(plan, maker, steps, meter=meter, send=send):
            for batch in batches:
                say(batch.remarks)
            lr = stepper.set_lr(lr_factor(meter.step))
            try:
                outcome = stepper.update(batches)
            except (RuntimeError, MemoryError) as error:
                _use_less_memory(error, plan=plan, stepper=stepper, meter=meter, step=step)
                continue
            meter.step_done(step, lr, outcome)
            between.after_step(meter)
            reason = between.stop_reason()
            if reason and meter.step < plan.total_steps:
                return reason
        # Past the end where the images have changed since the state was saved.
        if meter.progress.steps_into_epoch >= len(steps):
            meter.epoch_done()
            between.after_epoch(meter)
            reason = between.stop_reason()
            if reason and meter.step < plan.total_steps:
                return reason
    return None


def _use_less_memory(
    error: BaseException, *, plan: RunPlan, stepper: Stepper, meter: Meter, step: Step
) -> None:
    """Let this step and those to come go through the device in smaller parts.

    Raises: the error itself if it is another one; EnvironmentFault where that was tried for this
        step already, or cannot be done.
    """
    if not is_out_of_memory(error):
        raise error
    sizes = tuple(meter.micro_batches or plan.batch_size)
    # Several processes would have to agree on it while one of them hangs in the failed step, and
    # where the backward pass changes the weights there is only one of it in a step.
    can_cut = plan.num_processes == 1 and stepper.fused is None
    fewer = smaller(sizes, step.dataset) if can_cut else None
    if fewer is None or meter.was_cut_at_this_step:
        where = f"bucket {step.bucket[0]}x{step.bucket[1]}"
        raise stepper.memory_fault(where, sizes[step.dataset]) from error
    free_what_is_left(stepper.optimizer)
    meter.use_micro_batches(fewer)


def batches_ahead(
    plan: RunPlan,
    maker: BatchMaker,
    steps: EpochSteps,
    *,
    meter: Meter,
    send: Callable[[Batch], Batch] = lambda batch: batch,
) -> Iterator[tuple[Step, list[Batch]]]:
    """Yield each step that is left with its micro-batches, prepared while the device works.

    `send` sees each batch in the thread that prepares it.
    Where the micro-batches have become smaller, the step that did not fit comes once more.
    """
    is_cut = True
    while is_cut:
        is_cut = False
        sizes = meter.micro_batches
        first = meter.progress.steps_into_epoch
        due = steps.between(first, first + plan.total_steps - meter.step)
        jobs = (
            _begun(plan, maker, step, number, sizes or plan.batch_size, send)
            for number, step in enumerate(due, start=meter.step)
        )
        depth = steps_ahead(maker.latents.pictures_ahead, sizes or plan.batch_size)
        for prepared in prefetched(jobs, depth=depth):
            yield prepared
            is_cut = meter.micro_batches != sizes
            if is_cut:
                break


def steps_ahead(pictures_ahead: int, sizes: Sequence[int]) -> int:
    """Return how many steps are begun ahead, so that no process that reads pictures waits."""
    return max(PREFETCH_STEPS, min(-(-pictures_ahead // min(sizes)), MAX_PREFETCH_STEPS))


def _begun(
    plan: RunPlan,
    maker: BatchMaker,
    step: Step,
    number: int,
    sizes: Sequence[int],
    send: Callable[[Batch], Batch],
) -> Callable[[], tuple[Step, list[Batch]]]:
    """Ask for a step's pictures, and return what gives the step with its micro-batches.

    `number` is that of updates before it.
    """
    shares = micro_batches(
        step,
        batch_size=sizes[step.dataset],
        rank=plan.rank,
        num_processes=plan.num_processes,
    )
    begun = [maker.begin(step, uses, step_number=number) for uses in shares]
    return lambda: (step, [send(batch()) for batch in begun])
