"""Settings of validation: which images are held out, when they are measured, what follows."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from sdft.config.settings import setting


class ValidationSettings(
    BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True
):
    """The part of the training settings that says how images not trained on are measured.

    None of them changes a weight. `validation_split` and `validation_seed` stand with the datasets.
    """

    validation_dir: Path | None = setting(
        None,
        help="Folder of images with captions that are measured and never trained on.",
        group="validation",
        common=True,
        decides=False,
    )
    validate_every_n_steps: int | None = setting(
        None,
        ge=1,
        help="Measure each time after so many steps.",
        group="validation",
        unit="steps",
        common=True,
        decides=False,
    )
    validate_every_n_epochs: int | None = setting(
        None,
        ge=1,
        help="Measure each time after so many epochs; after each where nothing is set.",
        group="validation",
        unit="epochs",
        decides=False,
    )
    max_validation_steps: int | None = setting(
        None,
        ge=1,
        help="Measure with at most so many batches of images.",
        group="validation",
        unit="batches",
        decides=False,
    )
    validation_timesteps: int = setting(
        4,
        ge=1,
        le=100,
        help="At how many timesteps, evenly spread, each image is measured.",
        group="validation",
        decides=False,
    )
    save_best_validation: bool = setting(
        False,
        help="Keep the checkpoint that measured best under its own name.",
        group="validation",
        decides=False,
    )
    stop_after_n_validations: int | None = setting(
        None,
        ge=1,
        help="End the run after so many measurements without a better one.",
        group="validation",
        unit="measurements",
        # The run ends elsewhere than its length says: another result.
        decides=True,
    )
