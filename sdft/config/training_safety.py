"""Settings of what keeps a run's work: where it goes on, and what it does when something breaks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from sdft.config.settings import setting
from sdft.config.training_objective import NamePatterns


class SafetySettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True):
    """The part of the training settings that says how nothing is lost."""

    rolling_state_steps: int | None = setting(
        None,
        ge=1,
        help="Renew the state to resume from after so many steps, besides the minutes.",
        group="safety",
        unit="steps",
        decides=False,
    )
    no_rolling_state: bool = setting(
        False,
        help="Keep no state to resume from but those asked for.",
        group="safety",
        decides=False,
    )
    allow_changed: NamePatterns = setting(
        (),
        help="Settings, or dataset, model, seed or effective_batch, that a resumed run may change.",
        group="safety",
        decides=False,
    )
    initial_epoch: int | None = setting(
        None, ge=1, help="Start at the first step of this epoch.", group="safety", unit="epochs"
    )
    initial_step: int | None = setting(
        None,
        ge=0,
        help="Start in the epoch of this step; with skip_until_initial_step right after the step.",
        group="safety",
        unit="steps",
    )
    skip_until_initial_step: bool = setting(
        False, help="Start right after initial_step, within its epoch.", group="safety"
    )
    on_bad_step: Literal["stop", "skip"] = setting(
        "stop",
        help="What to do where loss or gradient is no number; skip waits for the GPU in each step.",
        group="safety",
    )
    max_bad_steps: int = setting(
        5,
        ge=1,
        help="Go back to the last state after so many skipped steps in a row.",
        group="safety",
        unit="steps",
    )
    allow_sleep: bool = setting(
        False,
        help="Let the machine fall asleep while training.",
        group="safety",
        decides=False,
    )
