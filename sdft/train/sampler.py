"""The order of training: which items make up each step of an epoch.

In: how many items each bucket of each dataset holds, the effective batch, the seed, the epoch.
Out: the epoch's steps. A pure function without torch, so any process, worker or resumed run
computes the same order instead of replaying it.

Letters in names: U uses of a group, P steps of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from sdft.streams import seed64

PartialBatches = Literal["keep", "carry", "drop"]
"""What becomes of the uses that fill no whole step at an epoch's end: they make a short step, go
into a step of the next epoch, or are left out."""


@dataclass(frozen=True, slots=True)
class Use:
    """One use of one item."""

    placement: int
    """Index into the plan's placements."""
    repeat: int
    epoch: int = 1
    """The epoch whose use it is, from 1; a use that was carried over keeps its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """The items that may share a step: one bucket of one dataset."""

    dataset: int
    bucket: tuple[int, int]
    placements: Sequence[int] | np.ndarray
    repeats: Sequence[int] | np.ndarray
    """How often each of the placements is used in an epoch."""

    @cached_property
    def num_uses(self) -> int:
        """Return how many uses an epoch has."""
        return int(np.sum(np.asarray(self.repeats, dtype=np.int64)))

    @cached_property
    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the placement and the repeat of each use. Shapes: twice [U] int64."""
        repeats = np.asarray(self.repeats, dtype=np.int64)
        placements_U = np.repeat(np.asarray(self.placements, dtype=np.int64), repeats)
        firsts_U = np.repeat(np.cumsum(repeats) - repeats, repeats)
        return placements_U, np.arange(len(placements_U)) - firsts_U

    def uses(self, epoch: int = 1) -> list[Use]:
        """Return all uses of an epoch, in no particular order."""
        columns = zip(*(column.tolist() for column in self.columns), strict=True)
        return [Use(placement, repeat, epoch) for placement, repeat in columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one optimizer update sees."""

    dataset: int
    bucket: tuple[int, int]
    uses: tuple[Use, ...]
    effective_batch: int
    """The number of items that a full step has; each item weighs one part of it."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order of a whole run: which steps each epoch has."""

    groups: Sequence[Group]
    effective_batch: Sequence[int]
    """Items an update, one number a dataset: batch size x processes x accumulation."""
    seed: int
    partial_batches: PartialBatches = "keep"

    def steps_through(self, num_epochs: int) -> int:
        """Return how many steps the first epochs have together."""
        return sum(self._steps_of(group, num_epochs) for group in self.groups)

    def epochs_for(self, num_steps: int) -> int:
        """Return the epoch in which the last of so many steps lies, or 0 where none ever comes."""
        if self.num_uses == 0 or (self.partial_batches == "drop" and self.steps_through(1) == 0):
            return 0
        high = 1
        while self.steps_through(high) < num_steps:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.steps_through(middle) >= num_steps else (middle, high)
        return high

    @property
    def num_uses(self) -> int:
        """Return how many uses an epoch has, those left out included."""
        return sum(group.num_uses for group in self.groups)

    def never_used(self) -> int:
        """Return how many groups are so small that no epoch has a step of theirs."""
        if self.partial_batches != "drop":
            return 0
        return sum(0 < group.num_uses < self._size(group) for group in self.groups)

    def left_out(self) -> int:
        """Return how many uses of an epoch are in none of its steps, nor carried into another."""
        if self.partial_batches != "drop":
            return 0
        return sum(group.num_uses % self._size(group) for group in self.groups)

    def epoch(self, epoch: int) -> EpochSteps:
        """Return the steps of one epoch, counted from 1, in order."""
        return EpochSteps(self, epoch)

    def _size(self, group: Group) -> int:
        return self.effective_batch[group.dataset]

    def _steps_of(self, group: Group, num_epochs: int) -> int:
        uses, size = group.num_uses, self._size(group)
        if self.partial_batches == "carry":
            return num_epochs * uses // size
        return num_epochs * (uses // size if self.partial_batches == "drop" else -(-uses // size))

    def _part(self, number: int, epoch: int) -> _Part:
        """Return a group's share of an epoch."""
        group = self.groups[number]
        uses, size = group.num_uses, self._size(group)
        if self.partial_batches != "carry":
            picked_U = self._shuffled(group, epoch)
            if self.partial_batches == "drop":
                picked_U = picked_U[: uses // size * size]
            return _Part(group, size, picked_U, np.full(len(picked_U), epoch))
        # All epochs' uses stand in one endless row, which is cut into steps from its start.
        start = self._steps_of(group, epoch - 1) * size
        stop = self._steps_of(group, epoch) * size
        picked, epochs = [], []
        for one in range(start // max(uses, 1) + 1, epoch + 1):
            first = (one - 1) * uses
            part_U = self._shuffled(group, one)[max(start - first, 0) : max(stop - first, 0)]
            picked.append(part_U)
            epochs.append(np.full(len(part_U), one))
        none = [np.empty(0, dtype=np.int64)]
        return _Part(group, size, np.concatenate(picked or none), np.concatenate(epochs or none))

    def _shuffled(self, group: Group, epoch: int) -> np.ndarray:
        width, height = group.bucket
        return shuffled(group.num_uses, self.seed, epoch, group.dataset, width, height, "order")


@dataclass(frozen=True, slots=True)
class _Part:
    """What one group gives to an epoch: numbers of its uses in order, and their epochs."""

    group: Group
    size: int
    picked_U: np.ndarray
    epochs_U: np.ndarray

    def num_steps(self) -> int:
        return -(-len(self.picked_U) // self.size)

    def step(self, number: int) -> Step:
        span = slice(number * self.size, (number + 1) * self.size)
        placements_U, repeats_U = self.group.columns
        picked = self.picked_U[span]
        columns = (placements_U[picked], repeats_U[picked], self.epochs_U[span])
        return Step(
            dataset=self.group.dataset,
            bucket=self.group.bucket,
            uses=tuple(map(Use, *(column.tolist() for column in columns))),
            effective_batch=self.size,
        )


class EpochSteps:
    """The steps of one epoch. Holds arrays; a Step is made when it is asked for."""

    def __init__(self, order: Order, epoch: int) -> None:
        self._parts = [order._part(number, epoch) for number in range(len(order.groups))]
        counts = np.array([part.num_steps() for part in self._parts], dtype=np.int64)
        parts_P = np.repeat(np.arange(len(counts)), counts)
        numbers_P = np.arange(len(parts_P)) - np.repeat(np.cumsum(counts) - counts, counts)
        order_P = shuffled(len(parts_P), order.seed, epoch, "steps")
        self._parts_P, self._numbers_P = parts_P[order_P], numbers_P[order_P]

    def __len__(self) -> int:
        return len(self._parts_P)

    def __getitem__(self, number: int) -> Step:
        # An index past the end raises IndexError, which also ends a loop over the steps.
        part: _Part = self._parts[self._parts_P[number]]
        return part.step(int(self._numbers_P[number]))

    def between(self, start: int, stop: int) -> Iterator[Step]:
        """Yield the steps from `start` up to, not including, `stop`."""
        return (self[number] for number in range(start, min(stop, len(self))))


def shuffled(count: int, *address: object) -> np.ndarray:
    """Return the numbers 0 .. count - 1 in an order that depends on the address alone.

    Sorted by random keys: the raw numbers of a generator never change between versions of numpy,
    while the ways of shuffling may.
    """
    keys = np.random.Philox(key=seed64(*address)).random_raw(count)
    return np.argsort(keys, kind="stable")


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
