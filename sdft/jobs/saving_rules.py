"""When a run saves what, from its settings. Needs no torch."""

from __future__ import annotations

from dataclasses import replace

from sdft.config.training import TrainingSettings
from sdft.train.checkpoint import SaveRules


def save_rules(settings: TrainingSettings, num_epochs: int) -> tuple[SaveRules, SaveRules]:
    """Return when checkpoints and when states are saved."""
    every_n_epochs = settings.save_every_n_epochs
    if settings.save_n_epoch_ratio:
        every_n_epochs = max(1, num_epochs // settings.save_n_epoch_ratio)
    rules = SaveRules(
        every_n_steps=settings.save_every_n_steps,
        every_n_epochs=every_n_epochs,
        last_n_steps=settings.save_last_n_steps,
        last_n_epochs=settings.save_last_n_epochs,
    )
    if not settings.save_state:
        return rules, SaveRules()
    return rules, replace(
        rules,
        last_n_steps=settings.save_last_n_steps_state or rules.last_n_steps,
        last_n_epochs=settings.save_last_n_epochs_state or rules.last_n_epochs,
    )
