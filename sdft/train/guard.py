"""What to say and do when figures are no numbers, or far from what they were.

In: a step's figures. Out: words that name the cause and the items; whether a loss is a spike.
Looks at the device only when something is wrong already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

from sdft.errors import DataError
from sdft.models.sharding import local_part
from sdft.train.sampler import Step, Use
from sdft.train.step import StepOutcome

NUM_RECENT = 64
"""Losses that a spike is measured against."""
MIN_RECENT = 32
SPIKE_FACTOR = 8.0
"""A loss so many times the median is named. The losses of single images differ by their timestep
alone: at batch size 1 a factor of 4 is common, so a smaller limit would cry wolf."""

NUM_NAMED = 5

_FIX = (
    "lower learning_rate, or use mixed_precision bf16 or no instead of fp16;"
    " on_bad_step = skip leaves such steps out"
)


def is_spike(loss: float, recent: Sequence[float]) -> bool:
    """Tell whether a loss is far above those before it."""
    return len(recent) >= MIN_RECENT and loss > SPIKE_FACTOR * median(recent)


def remembered(recent: Sequence[float], loss: float) -> tuple[float, ...]:
    """Return the recent losses with one more."""
    return (*recent, loss)[-NUM_RECENT:]


def cause_of(
    step: Step,
    outcome: StepOutcome,
    *,
    loss: float,
    grad_norm: float | None,
    name_of: Callable[[Use], str],
    bad_weight: Callable[[], str],
) -> str:
    """Say why a step's figures are no numbers, with the names of the items that it comes from.

    `bad_weight` gives the name of a weight that is no number, or an empty text.
    """
    uses = step.uses
    silent = _where(outcome.contexts_finite, uses, name_of)
    if silent:
        return f"the text encoder's output is no number for {silent}"
    # After the update every weight may be broken by this very step.
    weight = "" if outcome.applied else bad_weight()
    if not math.isfinite(loss):
        broken = _where(outcome.losses_finite, uses, name_of)
        where = f" for {broken}" if broken else ""
        cause = f"the loss is no number{where}"
        return f"{cause}, because the weight {weight} is none" if weight else cause
    if grad_norm is not None and not math.isfinite(grad_norm):
        return f"the gradient is no number, while the loss is; images: {names(uses, name_of)}"
    return f"the weight {weight} is no number" if weight else "its figures are no numbers"


def bad_step_error(number: int, step: Step, epoch: int, cause: str) -> DataError:
    return DataError(
        what=f"step {number} cannot be used: {cause}",
        where=f"bucket {step.bucket[0]}x{step.bucket[1]}, epoch {epoch}",
        fix=_FIX,
        key="bad_step",
        values={"number": number, "cause": cause},
    )


def names(uses: Sequence[Use], name_of: Callable[[Use], str]) -> str:
    """Return the names of a few items, and how many more there are."""
    shown = list(dict.fromkeys(name_of(use) for use in uses))
    more = f" and {len(shown) - NUM_NAMED} more" if len(shown) > NUM_NAMED else ""
    return ", ".join(shown[:NUM_NAMED]) + more


def first_bad_weight(modules: Mapping[str, torch.nn.Module]) -> str:
    """Return the name of a weight that is no number, or an empty text."""
    for part, module in modules.items():
        for name, weight in module.named_parameters():
            # Of weights that are spread over processes, this process' part: one asks alone.
            if not bool(torch.isfinite(local_part(weight.detach())).all()):
                return f"{part}.{name}"
    return ""


def _where(finite_N: Tensor | None, uses: Sequence[Use], name_of: Callable[[Use], str]) -> str:
    """Return the names of the items whose figure is no number."""
    if finite_N is None or len(finite_N) != len(uses):
        return ""
    broken = [use for use, fine in zip(uses, finite_N.tolist(), strict=True) if not fine]
    return names(broken, name_of) if broken else ""
