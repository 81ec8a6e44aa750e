"""The learning rate along the run, as training will set it. Draws nothing."""

from __future__ import annotations

from sdft.config.training import TrainingSettings
from sdft.errors import SdftError
from sdft.train.lr import build_factor
from sdft.views.series import Point

NUM_POINTS = 400


def rate_points(settings: TrainingSettings, total_steps: int) -> list[Point]:
    """Return the learning rate at some steps; empty where only the optimizer knows it."""
    optimizer = settings.optimizer_type.lower()
    relative = optimizer == "adafactor" and not any(
        argument.replace(" ", "").lower() == "relative_step=false"
        for argument in settings.optimizer_args
    )
    if settings.lr_scheduler_type is not None or relative:
        return []
    name = "constant" if optimizer.endswith("schedulefree") else settings.lr_scheduler
    warmup = 0 if name == "constant" else _steps(settings.lr_warmup_steps, total_steps)
    pairs = dict(text.partition("=")[::2] for text in settings.lr_scheduler_args)
    try:
        factor = build_factor(
            name,
            total_steps=total_steps,
            warmup_steps=warmup,
            decay_steps=_steps(settings.lr_decay_steps, total_steps),
            num_cycles=settings.lr_scheduler_num_cycles,
            power=settings.lr_scheduler_power,
            timescale=settings.lr_scheduler_timescale,
            min_lr_ratio=settings.lr_scheduler_min_lr_ratio or 0.0,
            step_rules=pairs.get("step_rules", "").strip("\"'"),
            base_lr=settings.learning_rate,
        )
        gap = max(total_steps // NUM_POINTS, 1)
        rates = [(s, factor(s) * settings.learning_rate) for s in range(0, total_steps, gap)]
    except SdftError:
        # What is wrong is said beside the field.
        return []
    return [Point(step, rate, rate, rate, 1) for step, rate in rates]


def _steps(steps_or_share: float, total_steps: int) -> int:
    return int(steps_or_share * total_steps) if steps_or_share < 1 else int(steps_or_share)
