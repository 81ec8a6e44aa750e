"""The order and the length of a run, from its settings. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdft.config.training import TrainingSettings
from sdft.dataset.tables import PlacementTable
from sdft.errors import DataError
from sdft.train.sampler import Group, Order


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLength:
    """How many updates a run has, and in which order items come."""

    order: Order
    total_steps: int
    num_epochs: int
    """The epoch in which the last step lies."""


def groups_of(table: PlacementTable) -> tuple[Group, ...]:
    """Return what may share a step: the placements of one bucket of one dataset."""
    repeats_N = table.items.repeats_N[table.numbers_N]
    return tuple(
        Group(dataset=dataset, bucket=bucket, placements=rows, repeats=repeats_N[rows])
        for (dataset, bucket), rows in table.by_bucket().items()
    )


def order_of(
    settings: TrainingSettings,
    groups: Sequence[Group],
    batch_size: Sequence[int],
    *,
    seed: int,
    num_processes: int = 1,
    effective_batch: Sequence[int] | None = None,
) -> RunLength:
    """Return the order of the whole run; `batch_size` holds one number a dataset, and so does
    `effective_batch`, where a run that goes on keeps another than its settings would give.

    Raises: DataError where no bucket fills a step.
    """
    share = settings.gradient_accumulation_steps * num_processes
    order = Order(
        groups=groups,
        effective_batch=effective_batch or [size * share for size in batch_size],
        seed=seed,
        partial_batches=settings.partial_batches,
    )
    total = settings.max_train_steps
    if settings.max_train_epochs is not None:
        total = order.steps_through(settings.max_train_epochs)
    num_epochs = order.epochs_for(total)
    if total == 0 or num_epochs == 0:
        raise DataError(
            what="no bucket holds enough images for one whole step",
            where=f"partial_batches = {settings.partial_batches}",
            fix="lower the batch size, or set partial_batches to keep",
        )
    return RunLength(order=order, total_steps=total, num_epochs=num_epochs)
