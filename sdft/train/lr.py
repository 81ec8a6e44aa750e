"""The learning rate as a function of the step, without torch.

In: a schedule's name and numbers. Out: a function from the number of updates done so far to the
factor of the base learning rate. Being pure, it needs no state on resume and can draw the curve
before a run.
Source of the formulas: the schedulers of the same names in transformers and diffusers, to which
the tests hold these.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sdft.errors import ConfigError
from sdft.registry import Registry

Factor = Callable[[int], float]

LR_SCHEDULES = Registry(
    "lr_scheduler",
    {
        "constant": "sdft.train.lr:constant",
        "constant_with_warmup": "sdft.train.lr:constant",
        "linear": "sdft.train.lr:linear",
        "cosine": "sdft.train.lr:cosine",
        "cosine_with_restarts": "sdft.train.lr:cosine_with_restarts",
        "polynomial": "sdft.train.lr:polynomial",
        "inverse_sqrt": "sdft.train.lr:inverse_sqrt",
        "cosine_with_min_lr": "sdft.train.lr:cosine_with_min_lr",
        "cosine_warmup_with_min_lr": "sdft.train.lr:cosine_warmup_with_min_lr",
        "adafactor": "sdft.train.lr:adafactor",
        "warmup_stable_decay": "sdft.train.lr:warmup_stable_decay",
        "piecewise_constant": "sdft.train.lr:piecewise_constant",
    },
)


def build_factor(
    name: str,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    decay_steps: int = 0,
    num_cycles: int = 1,
    power: float = 1.0,
    timescale: int | None = None,
    min_lr_ratio: float = 0.0,
    step_rules: str = "",
    base_lr: float = 1.0,
    warmup_init: bool = False,
) -> Factor:
    """Return the factor of the base learning rate after `step` updates.

    Units: `total_steps`, `warmup_steps`, `decay_steps` and `timescale` are optimizer updates.
    Raises: UnknownName; ConfigError where the schedule cannot be made of these numbers.
    """
    canonical = LR_SCHEDULES.canonical(name)
    if canonical == "constant" and warmup_steps:
        raise ConfigError(
            what='lr_scheduler "constant" has no warm-up',
            where="lr_warmup_steps",
            fix='use lr_scheduler = "constant_with_warmup"',
        )
    shape = LR_SCHEDULES.get(canonical)
    after_warmup: Factor = shape(
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        num_cycles=num_cycles,
        power=power,
        timescale=timescale,
        min_lr_ratio=min_lr_ratio,
        step_rules=step_rules,
        base_lr=base_lr,
        warmup_init=warmup_init,
    )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _rise(canonical, step, warmup_steps, min_lr_ratio)
        return after_warmup(step)

    return factor


def _rise(canonical: str, step: int, warmup_steps: int, min_lr_ratio: float) -> float:
    """Return the factor during warm-up: from 0 in a straight line but for two names."""
    if canonical == "warmup_stable_decay":
        return min_lr_ratio + (1.0 - min_lr_ratio) * step / warmup_steps
    if canonical == "cosine_warmup_with_min_lr":
        return (step + 1) / warmup_steps
    return step / warmup_steps


def _progress(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return 0 at the end of the warm-up, 1 at the end of the run, more after it."""
    return (step - warmup_steps) / max(1, total_steps - warmup_steps)


def constant(**_: object) -> Factor:
    """Stay at the base learning rate."""
    return lambda step: 1.0


def adafactor(*, warmup_init: bool, **_: object) -> Factor:
    """Follow the steps that Adafactor sizes by itself, before it scales them by the weights.

    It does not read them; they are for people.
    Source: Shazeer and Stern 2018 (arXiv 1804.04235), algorithm 5.
    """

    def factor(step: int) -> float:
        largest = 1e-6 * (step + 1) if warmup_init else 1e-2
        return min(largest, 1.0 / math.sqrt(step + 1))

    return factor


def linear(*, total_steps: int, warmup_steps: int, **_: object) -> Factor:
    """Fall in a straight line to 0."""
    return lambda step: max(0.0, 1.0 - _progress(step, warmup_steps, total_steps))


def cosine(*, total_steps: int, warmup_steps: int, **_: object) -> Factor:
    """Fall along half a cosine wave to 0."""

    def factor(step: int) -> float:
        progress = _progress(step, warmup_steps, total_steps)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))

    return factor


def cosine_with_restarts(
    *, total_steps: int, warmup_steps: int, num_cycles: int, **_: object
) -> Factor:
    """Fall along half a cosine wave `num_cycles` times, jumping back to 1 in between."""

    def factor(step: int) -> float:
        progress = _progress(step, warmup_steps, total_steps)
        if progress >= 1.0:
            return 0.0
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * progress) % 1.0))))

    return factor


def polynomial(
    *, total_steps: int, warmup_steps: int, power: float, base_lr: float, **_: object
) -> Factor:
    """Fall as (1 - progress) ** power to the end value of the libraries, 1e-7.

    Raises: ConfigError where the base learning rate is not above that end value.
    """
    end_lr = 1e-7
    if base_lr <= end_lr:
        raise ConfigError(
            what=f'"polynomial" ends at {end_lr}; a learning_rate of {base_lr} is not above that',
            where="learning_rate",
            fix='use a higher learning rate or lr_scheduler = "linear"',
        )

    def factor(step: int) -> float:
        remaining = 1.0 - _progress(step, warmup_steps, total_steps)
        if step > total_steps:
            return end_lr / base_lr
        return float(((base_lr - end_lr) * remaining**power + end_lr) / base_lr)

    return factor


def inverse_sqrt(*, warmup_steps: int, timescale: int | None, **_: object) -> Factor:
    """Fall with the square root of time; `timescale` defaults to the warm-up, or 10,000."""
    scale = timescale or warmup_steps or 10_000
    shift = scale - warmup_steps
    return lambda step: 1.0 / math.sqrt((step + shift) / scale)


def cosine_with_min_lr(
    *, total_steps: int, warmup_steps: int, min_lr_ratio: float, num_cycles: int, **_: object
) -> Factor:
    """Follow a cosine of `num_cycles / 2` waves between 1 and the floor."""

    def factor(step: int) -> float:
        progress = _progress(step, warmup_steps, total_steps)
        wave = 0.5 * (1.0 + math.cos(math.pi * num_cycles * progress))
        return max(0.0, wave * (1.0 - min_lr_ratio) + min_lr_ratio)

    return factor


def cosine_warmup_with_min_lr(
    *, total_steps: int, warmup_steps: int, min_lr_ratio: float, num_cycles: int, **_: object
) -> Factor:
    """Follow the same wave one step ahead, so that the last update is at the floor itself."""

    def factor(step: int) -> float:
        progress = (step + 1 - warmup_steps) / max(1, total_steps - warmup_steps)
        wave = 0.5 * (1.0 + math.cos(math.pi * num_cycles * progress))
        return max(0.0, wave * (1.0 - min_lr_ratio) + min_lr_ratio)

    return factor


def warmup_stable_decay(
    *,
    total_steps: int,
    warmup_steps: int,
    decay_steps: int,
    min_lr_ratio: float,
    num_cycles: int,
    **_: object,
) -> Factor:
    """Stay at 1, then follow a cosine over the last `decay_steps` down to the floor."""
    decay_from = total_steps - decay_steps

    def factor(step: int) -> float:
        if step < decay_from:
            return 1.0
        if step >= total_steps:
            return min_lr_ratio
        progress = (step - decay_from) / max(1, decay_steps)
        wave = 0.5 * (1.0 + math.cos(math.pi * num_cycles * progress))
        return max(0.0, wave * (1.0 - min_lr_ratio) + min_lr_ratio)

    return factor


def piecewise_constant(*, step_rules: str, **_: object) -> Factor:
    """Follow rules such as `1:10,0.1:20,0.01`: factor 1 before step 10, 0.1 before 20, then 0.01.

    Raises: ConfigError where the rules cannot be read.
    """
    try:
        *pieces, last = step_rules.split(",")
        rules = [
            (int(step), float(value)) for value, step in (piece.split(":") for piece in pieces)
        ]
        final = float(last)
    except ValueError:
        raise ConfigError(
            what=f'step_rules "{step_rules}" cannot be read',
            where="lr_scheduler_args",
            fix='write them like "step_rules=1:10,0.1:20,0.01"',
        ) from None

    def factor(step: int) -> float:
        return next((value for until, value in rules if step < until), final)

    return factor
