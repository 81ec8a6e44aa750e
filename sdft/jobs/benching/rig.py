"""A model on its device with the engine's own step, as settings ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelerate.state import AcceleratorState

from sdft.config.training import TrainingSettings
from sdft.events import Emit, ignore
from sdft.jobs.training.device_use import device_use
from sdft.jobs.training.loading import networks_of
from sdft.jobs.training.machine import build_accelerator
from sdft.jobs.training.networks import Networks
from sdft.jobs.training.recipes import build_stepper
from sdft.jobs.training.wishes import scales_loss
from sdft.models.bundle import ModelBundle
from sdft.train.step import Stepper


@dataclass(frozen=True, kw_only=True)
class Rig:
    """What does steps."""

    settings: TrainingSettings
    networks: Networks
    stepper: Stepper


def settings_of(values: Mapping[str, Any]) -> TrainingSettings:
    """Return settings with these values and defaults for the others."""
    return TrainingSettings.model_validate({"seed": 1, "learning_rate": 1e-5} | dict(values))


def build_rig(bundle: ModelBundle, settings: TrainingSettings, *, emit: Emit = ignore) -> Rig:
    """Put a model on the device as a run with these settings would.

    Raises: what `networks_of` raises.
    """
    # A process has one precision until it is told otherwise.
    AcceleratorState._reset_state()
    accelerator = build_accelerator(
        device=settings.device,
        mixed_precision=settings.mixed_precision,
        deterministic=settings.deterministic,
        own_scaler=scales_loss(settings),
        tf32=settings.tf32,
        emit=emit,
    )
    use = device_use(
        settings, accelerator.device, num_shapes=1, total_steps=settings.max_train_steps, emit=emit
    )
    networks = networks_of(settings, bundle, accelerator, use, emit)
    return Rig(settings=settings, networks=networks, stepper=build_stepper(settings, networks))
