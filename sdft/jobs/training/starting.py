"""Where a run begins, and what its exactness depends on.

In: settings and the plan of a run. Out: the place of its first step; facts to keep in its states.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from sdft import __version__
from sdft.config.training import TrainingSettings
from sdft.errors import ConfigError
from sdft.events import Emit, Notice
from sdft.train.loop import RunPlan
from sdft.train.state import Progress

_LIBRARIES = ("torch", "diffusers", "transformers", "bitsandbytes", "numpy")
"""Those whose arithmetic or random numbers decide the last bits."""


def first_place(settings: TrainingSettings, plan: RunPlan, emit: Emit) -> Progress:
    """Return where a run that has no state begins.

    `initial_epoch` is the first step of that epoch. `initial_step` is the first step of its epoch,
    or, with `skip_until_initial_step`, the step right after it; it wins over `initial_epoch`. Data,
    learning rate, file names and counts are those of that place in the whole run: nothing is read
    and thrown away, since the order is computed.

    Raises: ConfigError where the run ends before that place.
    """
    if not settings.initial_step and (settings.initial_epoch or 1) == 1:
        return Progress()
    if settings.initial_step:
        step = settings.initial_step
        epoch = plan.order.epochs_for(step + 1)
    else:
        epoch = settings.initial_epoch or 1
        step = plan.order.steps_through(epoch - 1)
    before = plan.order.steps_through(epoch - 1)
    if not settings.skip_until_initial_step:
        step = before
    if step >= plan.total_steps:
        raise ConfigError(
            what=f"the run has {plan.total_steps} steps, and it would begin after step {step}",
            where="initial_step" if settings.initial_step else "initial_epoch",
            fix="max_train_steps and max_train_epochs count from the start of the whole run",
        )
    message = (
        f"the run begins with step {step + 1} of {plan.total_steps}, in epoch {epoch}: data, names"
        " and learning rate are those of that step; the optimizer begins with nothing learnt"
    )
    emit(Notice(severity="info", topic="start", message=message))
    return Progress(step=step, epoch=epoch, steps_into_epoch=step - before)


def machine_facts(
    device: torch.device, num_processes: int, *, is_spread: bool = False
) -> dict[str, str]:
    """Return what the last bits of a result depend on besides the settings."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    facts = {"device": f"{device.type} {name}", "sdft": __version__}
    # The order in which gradients are added up.
    facts["processes"] = f"{num_processes} with fsdp" if is_spread else str(num_processes)
    if device.type == "cpu":
        facts["threads"] = str(torch.get_num_threads())
    for library in _LIBRARIES:
        try:
            facts[library] = version(library)
        except PackageNotFoundError:
            continue
    return facts
