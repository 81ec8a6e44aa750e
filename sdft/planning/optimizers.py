"""What optimizers hold: bytes of state, and what a step needs for an instant.

The states are those that each class makes at its first step; the tests compare each row with the
real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

FLOAT32 = 4

Shape = tuple[int, ...]

SMALL_VALUES = 4096
"""Weights with fewer values keep float32 states under an 8-bit optimizer. Source: bitsandbytes."""
VALUES_PER_SCALE = 256
"""Neighbours that share one scale in 8-bit states. Source: bitsandbytes' blockwise states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerNeeds:
    """An optimizer's memory."""

    state_bytes: Callable[[Shape], int]
    """Of one weight; float32 states, whatever the weight is in, unless it says otherwise."""
    step_copies: float = 0.0
    """Float32 copies of all weights that exist for an instant while it steps."""
    weight_copies: float = 0.0
    """The same of the largest single weight, or of weights that are stepped as one."""
    cpu_weight_copies: float = 0.0
    """Further such copies on a CPU, where 8-bit states become float32 to be changed."""
    one_by_one: bool = True
    """Whether it can be stepped a part of the weights at a time."""
    follows_weights: bool = True
    """Whether the states of weights in 16 bits are in 16 bits."""


def _times(values: float) -> Callable[[Shape], int]:
    return lambda shape: int(prod(shape) * FLOAT32 * values)


def _in_8_bits(states: int) -> Callable[[Shape], int]:
    def state_bytes(shape: Shape) -> int:
        size = prod(shape)
        if size < SMALL_VALUES:
            return size * FLOAT32 * states
        return states * (size + -(-size // VALUES_PER_SCALE) * FLOAT32)

    return state_bytes


def _factored(shape: Shape) -> int:
    """Return the bytes of Adafactor's means over rows and columns; one value each for a vector."""
    if len(shape) < 2:
        return prod(shape) * FLOAT32
    *outer, rows, columns = shape
    return prod(outer) * (rows + columns) * FLOAT32


_PAGED_ADAM = OptimizerNeeds(state_bytes=_times(2), follows_weights=False)
_ADAM_8_BIT = OptimizerNeeds(state_bytes=_in_8_bits(2), follows_weights=False, cpu_weight_copies=4)
_ONE_STATE_8_BIT = OptimizerNeeds(
    state_bytes=_in_8_bits(1), follows_weights=False, cpu_weight_copies=2
)


def _finds_rate(states: int) -> OptimizerNeeds:
    return OptimizerNeeds(state_bytes=_times(states), weight_copies=2, one_by_one=False)


NEEDS = {
    "AdamW": OptimizerNeeds(state_bytes=_times(2)),
    "AdamW8bit": _ADAM_8_BIT,
    "PagedAdamW": _PAGED_ADAM,
    "PagedAdamW8bit": _ADAM_8_BIT,
    "PagedAdamW32bit": _PAGED_ADAM,
    "Lion": OptimizerNeeds(state_bytes=_times(1), follows_weights=False),
    "Lion8bit": _ONE_STATE_8_BIT,
    "PagedLion8bit": _ONE_STATE_8_BIT,
    # Nesterov's look ahead is a copy of the gradient, of all weights at once.
    "SGDNesterov": OptimizerNeeds(state_bytes=_times(1), step_copies=1),
    "SGDNesterov8bit": _ONE_STATE_8_BIT,
    "Adafactor": OptimizerNeeds(state_bytes=_factored, weight_copies=3, follows_weights=False),
    "DAdaptation": _finds_rate(3),
    "DAdaptAdamPreprint": _finds_rate(3),
    "DAdaptAdaGrad": _finds_rate(3),
    "DAdaptAdam": _finds_rate(3),
    "DAdaptAdan": _finds_rate(5),
    "DAdaptAdanIP": _finds_rate(5),
    "DAdaptLion": _finds_rate(2),
    "DAdaptSGD": _finds_rate(3),
    "Prodigy": _finds_rate(4),
    "RAdamScheduleFree": OptimizerNeeds(state_bytes=_times(2), step_copies=1, one_by_one=False),
    "AdamWScheduleFree": OptimizerNeeds(state_bytes=_times(2), step_copies=1, one_by_one=False),
    "SGDScheduleFree": OptimizerNeeds(state_bytes=_times(1), one_by_one=False),
}
"""By the names of the setting `optimizer_type`."""


def needs_of(name: str) -> OptimizerNeeds | None:
    """Return an optimizer's memory, none for a class of somebody else's."""
    by_lower = {known.lower(): needs for known, needs in NEEDS.items()}
    return by_lower.get(name.lower())
