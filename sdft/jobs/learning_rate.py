"""From settings to the learning rate at each step. Needs no torch but for a class of the user's."""

from __future__ import annotations

from collections.abc import Sequence

from sdft.config.training import TrainingSettings
from sdft.train.lr import Factor, build_factor
from sdft.train.optimizer_words import parse_arguments, steps_are_relative


def build_lr_factor(settings: TrainingSettings, total_steps: int) -> Factor:
    """Return the factor of the base learning rate by the number of updates done."""
    optimizer_arguments = parse_arguments(settings.optimizer_args, where="optimizer_args")
    if steps_are_relative(settings.optimizer_type, optimizer_arguments):
        return build_factor(
            "adafactor",
            total_steps=total_steps,
            warmup_init=bool(optimizer_arguments.get("warmup_init", False)),
        )
    if settings.optimizer_type.lower().endswith("schedulefree"):
        return build_factor("constant", total_steps=total_steps)
    if settings.lr_scheduler_type is not None:
        # Brings torch.
        from sdft.train.lr_custom import custom_factor

        return custom_factor(
            settings.lr_scheduler_type,
            arguments=parse_arguments(settings.lr_scheduler_args, where="lr_scheduler_args"),
            base_lr=settings.learning_rate,
        )
    return build_factor(
        settings.lr_scheduler,
        total_steps=total_steps,
        warmup_steps=_steps(settings.lr_warmup_steps, total_steps),
        decay_steps=_steps(settings.lr_decay_steps, total_steps),
        num_cycles=settings.lr_scheduler_num_cycles,
        power=settings.lr_scheduler_power,
        timescale=settings.lr_scheduler_timescale,
        min_lr_ratio=settings.lr_scheduler_min_lr_ratio or 0.0,
        step_rules=_step_rules(settings.lr_scheduler_args),
        base_lr=settings.learning_rate,
    )


def _steps(steps_or_share: float, total_steps: int) -> int:
    """Return a number of steps; a value below 1 is a share of the run."""
    share = steps_or_share if steps_or_share < 1 else 0.0
    return int(share * total_steps) if share else int(steps_or_share)


def _step_rules(arguments: Sequence[str]) -> str:
    pairs = dict(text.partition("=")[::2] for text in arguments)
    return pairs.get("step_rules", "").strip("\"'")
