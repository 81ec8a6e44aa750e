"""Measures the loss of images at fixed timesteps with fixed noise.

In: items, the engine's batch maker, and what gives a batch its losses. Out: a loss for each image
and timestep. The same model gives the same numbers, on any number of processes: which images share
a forward pass is fixed, and every random value has an address of its own.

N images, T timesteps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdft.train.batch import Batch, BatchMaker
from sdft.train.sampler import Group, Step, Use

LossesOf = Callable[[Batch], Tensor]
"""A batch on the CPU to the loss of each of its items, [B]."""

EPOCH = 0
"""Training counts its epochs from 1, so no address is used twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Images that share a forward pass."""

    step: Step
    """One use of each image; the repeat is set when the timestep is."""


def fixed_timesteps(count: int, *, min_timestep: int, max_timestep: int) -> tuple[int, ...]:
    """Return timesteps evenly spread over those that are trained, without the two ends.

    Source: sd-scripts takes 200, 400, 600 and 800 of 1000.
    """
    span = max_timestep - min_timestep
    return tuple(min_timestep + span * (n + 1) // (count + 1) for n in range(count))


def portions(
    groups: Sequence[Group], batch_size: Sequence[int], *, max_portions: int | None = None
) -> tuple[Portion, ...]:
    """Cut images into forward passes, bucket by bucket; repeats do not count.

    `batch_size` holds one number a dataset. With `max_portions` the rest is left out; buckets take
    turns, so that each shape of picture is heard.
    """
    by_group = []
    for group in groups:
        size = batch_size[group.dataset]
        numbers = [int(number) for number in group.placements]
        starts = range(0, len(numbers), size)
        by_group.append([_portion(group, numbers[start : start + size], size) for start in starts])
    longest = max((len(row) for row in by_group), default=0)
    in_turns = [row[turn] for turn in range(longest) for row in by_group if turn < len(row)]
    return tuple(in_turns[:max_portions])


def _portion(group: Group, numbers: Sequence[int], size: int) -> Portion:
    step = Step(
        dataset=group.dataset,
        bucket=group.bucket,
        uses=tuple(Use(number, 0) for number in numbers),
        effective_batch=size,
    )
    return Portion(step=step)


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """Measures one fixed set of images."""

    maker: BatchMaker
    """Of these images, with a seed of their own."""
    portions: Sequence[Portion]
    timesteps: Sequence[int]

    @property
    def num_images(self) -> int:
        return sum(len(portion.step.uses) for portion in self.portions)

    @torch.no_grad()
    def measure(
        self,
        losses_of: LossesOf,
        *,
        rank: int,
        num_processes: int,
        reduce_sum: Callable[[Tensor], Tensor],
        device: torch.device,
        in_step: bool = False,
    ) -> Tensor:
        """Return the loss of each image at each timestep; shape [N, T], float64 on the CPU.

        Every process measures its share; the others' places hold 0, so that the sum over all
        processes is each value itself, to the last bit. `in_step` lets a process with a smaller
        share measure something once more, so that all run as many passes.
        """
        losses_NT = torch.zeros(self.num_images, len(self.timesteps), device=device)
        jobs = [
            (first, portion, column)
            for first, portion in zip(self._firsts(), self.portions, strict=True)
            for column in range(len(self.timesteps))
        ]
        for first, portion, column in jobs[rank::num_processes]:
            batch = self._batch(portion.step, column)
            losses_NT[first : first + len(batch), column] = losses_of(batch).float()
        if in_step and len(jobs[rank::num_processes]) < -(-len(jobs) // num_processes):
            losses_of(self._batch(self.portions[0].step, 0))
        return reduce_sum(losses_NT).double().cpu()

    def _firsts(self) -> list[int]:
        """Return the row at which each portion begins."""
        firsts, row = [], 0
        for portion in self.portions:
            firsts.append(row)
            row += len(portion.step.uses)
        return firsts

    def _batch(self, step: Step, column: int) -> Batch:
        timestep = self.timesteps[column]
        maker = replace(self.maker, min_timestep=timestep, max_timestep=timestep)
        # Each timestep is another use of the image, so it has noise of its own.
        uses = tuple(Use(use.placement, column, EPOCH) for use in step.uses)
        return maker.make(step, uses, step_number=maker.max_train_steps)
