"""Optimizers that set their own learning rate, and what of the settings they do not look at."""

from __future__ import annotations

from collections.abc import Iterator

from sdft.config.training import TrainingSettings


def unread_rates(training: TrainingSettings) -> Iterator[tuple[str, str]]:
    """Yield settings that the chosen optimizer does not read, each with the reason."""
    name = training.optimizer_type
    if name.lower().endswith("schedulefree"):
        yield from _schedule(training, f"{name} needs no schedule")
    elif name == "Adafactor" and _sizes_its_steps(training):
        reason = (
            "Adafactor sizes its steps by itself; relative_step=False in optimizer_args ends it"
        )
        yield from _schedule(training, reason)
        for rate in ("learning_rate", "learning_rate_te"):
            if getattr(training, rate) != type(training).model_fields[rate].default:
                yield rate, reason


def _schedule(training: TrainingSettings, reason: str) -> Iterator[tuple[str, str]]:
    if training.lr_scheduler not in ("constant", "adafactor"):
        yield "lr_scheduler", reason
    for name in ("lr_scheduler_type", "lr_warmup_steps"):
        if getattr(training, name):
            yield name, reason


def _sizes_its_steps(training: TrainingSettings) -> bool:
    given = dict(entry.partition("=")[::2] for entry in training.optimizer_args)
    values = {key.strip(): value.strip().lower() for key, value in given.items()}
    return values.get("relative_step") != "false" or values.get("warmup_init") == "true"
