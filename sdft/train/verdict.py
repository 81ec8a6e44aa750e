"""What measurements of held-out images say: how sure a mean is, which was the best, whether the
model begins to learn its own images by heart.

In: the losses of each image, one record a measurement. Out: numbers and verdicts. Pure; no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

GAP_MEASUREMENTS = 3
"""The gap has to be there so many times in a row: one measurement may be chance."""

SMALLEST_GAP = 0.1
"""A tenth more loss. A smaller gap may be certain and still matter to nobody."""

_T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t for a band of 95 %, by degrees of freedom from 1. Source: any table of it."""

_NORMAL_95 = 1.960

_TINY = 1e-12
"""Stands for a loss of 0, which has no logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One look at the model."""

    step: int
    epoch: int
    held_out: tuple[float, ...]
    """The loss of each held-out image, the mean over its timesteps."""
    train: tuple[float, ...]
    """The same for images that are trained on."""
    by_timestep: tuple[float, ...]
    """The mean loss of the held-out images at each timestep."""

    @property
    def loss(self) -> float:
        return mean(self.held_out)


class Parting(IntEnum):
    """How far it has come with images that are learnt by heart."""

    NONE = 0
    BEGINS = 1
    """There is a gap, and held-out images are still better for the training."""
    BY_HEART = 2
    """There is a gap, and they are no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How far held-out and training images have parted since the first measurement."""

    size: float
    """Logarithm of how many times more the loss of held-out images grew than that of training
    images. A ratio, since losses of an untrained model are many times those of a trained one."""
    error: float
    """Standard error of `size`; infinite where there are too few images to tell."""

    @property
    def is_there(self) -> bool:
        """Whether it is more than chance, and large enough to matter."""
        return self.size > 2 * self.error and self.size > SMALLEST_GAP


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def band(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the ends of the band that holds the mean with 95 %, or None for fewer than two."""
    if len(values) < 2:
        return None
    freedom = len(values) - 1
    factor = _T_95[freedom - 1] if freedom <= len(_T_95) else _NORMAL_95
    half = factor * math.sqrt(_variance(values) / len(values))
    middle = mean(values)
    return middle - half, middle + half


def gap(first: Measurement, now: Measurement) -> Gap:
    """Return how far the two sets have parted.

    Each image is compared with itself, at the same timesteps and with the same noise, so that
    easy and hard images cancel out.
    """
    held_out = _changes(first.held_out, now.held_out)
    train = _changes(first.train, now.train)
    size = mean(held_out) - mean(train)
    if len(held_out) < 2 or len(train) < 2:
        return Gap(size=size, error=math.inf)
    variance = _variance(held_out) / len(held_out) + _variance(train) / len(train)
    return Gap(size=size, error=math.sqrt(variance))


def has_parted(history: Sequence[Measurement]) -> bool:
    """Tell whether the last few measurements all show a gap that the first one had not."""
    if len(history) < GAP_MEASUREMENTS + 1:
        return False
    return all(gap(history[0], now).is_there for now in history[-GAP_MEASUREMENTS:])


def news_of_parting(history: Sequence[Measurement]) -> Parting:
    """Return what the last measurement says, or NONE where one before it has said as much."""
    said, now, lowest = Parting.NONE, Parting.NONE, math.inf
    for number, measured in enumerate(history, start=1):
        said = max(said, now)
        gains = measured.step > 0 and measured.loss < lowest
        lowest = measured.loss if gains else lowest
        now = Parting.BEGINS if gains else Parting.BY_HEART
        now = now if has_parted(history[:number]) else Parting.NONE
    return now if now > said else Parting.NONE


def best(history: Sequence[Measurement]) -> Measurement | None:
    """Return the measurement of the lowest loss, the earliest of equals; the untrained model's
    does not count."""
    trained = [one for one in history if one.step > 0 and math.isfinite(one.loss)]
    return min(trained, key=lambda one: one.loss, default=None)


def num_without_gain(history: Sequence[Measurement]) -> int:
    """Return how many measurements came after the best one."""
    champion = best(history)
    trained = [one for one in history if one.step > 0]
    return len(trained) if champion is None else len(trained) - 1 - trained.index(champion)


def _changes(before: Sequence[float], after: Sequence[float]) -> list[float]:
    pairs = zip(before, after, strict=True)
    return [math.log(max(new, _TINY) / max(old, _TINY)) for old, new in pairs]


def _variance(values: Sequence[float]) -> float:
    middle = mean(values)
    return math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)
