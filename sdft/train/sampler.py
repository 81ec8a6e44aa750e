"""The order of training: which items make up each step of an epoch.

In: how many items each bucket of each dataset holds, the effective batch, the seed, the epoch.
Out: the epoch's steps. A pure function without torch, so any process, worker or resumed run
computes the same order instead of replaying it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdft.streams import stream


@dataclass(frozen=True, slots=True)
class Use:
    """One use of one item in an epoch."""

    placement: int
    """Index into the plan's placements."""
    repeat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The items that may share a step: one bucket of one dataset."""

    dataset: int
    bucket: tuple[int, int]
    placements: Sequence[int]
    repeats: Sequence[int]
    """How often each of the placements is used in an epoch."""

    def uses(self) -> list[Use]:
        return [
            Use(placement, repeat)
            for placement, count in zip(self.placements, self.repeats, strict=True)
            for repeat in range(count)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one optimizer update sees."""

    dataset: int
    bucket: tuple[int, int]
    uses: tuple[Use, ...]
    effective_batch: int
    """The number of items that a full step has; each item weighs one part of it."""


def steps_per_epoch(groups: Iterable[Group], effective_batch: Sequence[int]) -> int:
    """Return how many steps an epoch has, partial ones included."""
    return sum(
        -(-sum(group.repeats) // effective_batch[group.dataset])
        for group in groups
        if sum(group.repeats)
    )


def epoch_steps(
    groups: Sequence[Group], *, effective_batch: Sequence[int], seed: int, epoch: int
) -> list[Step]:
    """Return the steps of one epoch in order; every use occurs in exactly one of them.

    `effective_batch` holds one number a dataset: batch size x processes x accumulation.
    """
    steps = []
    for group in groups:
        uses = group.uses()
        stream(seed, epoch, group.dataset, group.bucket, "order").shuffle(uses)
        size = effective_batch[group.dataset]
        steps += [
            Step(
                dataset=group.dataset,
                bucket=group.bucket,
                uses=tuple(uses[start : start + size]),
                effective_batch=size,
            )
            for start in range(0, len(uses), size)
        ]
    stream(seed, epoch, "steps").shuffle(steps)
    return steps


def micro_batches(
    step: Step, *, batch_size: int, rank: int = 0, num_processes: int = 1
) -> list[tuple[Use, ...]]:
    """Return this process' share of a step, cut into batches that fit the device.

    Every process gets the same number of micro-batches; those past the step's last item are empty.
    """
    stride = batch_size * num_processes
    rounds = range(0, len(step.uses), stride)
    first = rank * batch_size
    return [step.uses[start + first : start + first + batch_size] for start in rounds]
