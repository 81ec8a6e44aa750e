"""Settings that a run chooses for itself so that it fits its card, and the memory it then expects.

In: a Config, its planned images. Out: the Config with what was chosen, and the planned peaks.
What a person set stays; what an earlier part of the run chose is chosen again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from sdft.config.load import Config, load_config
from sdft.events import Emit, MemoryPlanned, Notice, SettingChosen
from sdft.jobs.plan import planned_run
from sdft.jobs.planning.fitting import CHOOSABLE, Fit, fit
from sdft.jobs.sources import PlannedDataset
from sdft.planning.cards import CONTEXT_BYTES, Card
from sdft.rundir import RunDir
from sdft.train.state import SavedState
from sdft.units import format_bytes

Bucket = tuple[int, int]


def card_in_use() -> Card:
    """Return torch's current GPU."""
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return Card(
        name=torch.cuda.get_device_name(),
        total_bytes=total_bytes,
        # Asking has made the context already, which the plan counts.
        free_bytes=min(total_bytes, free_bytes + CONTEXT_BYTES),
        has_bf16=torch.cuda.is_bf16_supported(including_emulation=False),
    )


def fit_to_card(
    config: Config,
    dataset: PlannedDataset,
    card: Card,
    *,
    earlier: Mapping[str, Any],
    emit: Emit,
    num_processes: int = 1,
) -> tuple[Config, Mapping[Bucket, int]]:
    """Return the config as it fits the card, and the bytes that each bucket will take.

    `earlier` are the settings of the part of the run that a resumed one goes on from. Says what
    was chosen, and what is planned. No bytes where memory cannot be foreseen.

    Raises: what `planned_run` raises.
    """
    config = with_earlier_choices(config, earlier, emit)
    planned = planned_run(config, dataset, on_gpu=True, emit=emit, num_processes=num_processes)
    foresight = planned.foresight
    found = fit(config, foresight, card.usable_bytes, has_bf16=card.has_bf16)
    if found is None:
        return config, {}
    for name, value in found.values.items():
        emit(SettingChosen(name=name, value=value, reason=_reason(found, card)))
    if not found.fits:
        message = (
            f"this run takes {format_bytes(found.peak_bytes)} at the least, and"
            f" {format_bytes(card.usable_bytes)} can be used on {card.name}: it will hardly fit;"
            " `sdft plan` says what takes it"
        )
        emit(Notice(severity="warning", topic="memory", message=message))
    emit(MemoryPlanned(peak_bytes=found.peak_bytes, device_bytes=card.total_bytes))
    config = with_choices(config, found.values, "chosen to fit")
    plans = foresight.all(config.training)
    worst: dict[Bucket, int] = {}
    for shape, plan in plans.items():
        bucket = (shape.width_px, shape.height_px)
        worst[bucket] = max(worst.get(bucket, 0), plan.peak_bytes)
    return config, worst


def earlier_settings(run: RunDir, state: SavedState | None) -> Mapping[str, Any]:
    """Return the settings that a resumed run began with; nothing for a new one.

    Raises: ConfigError where the run's own settings cannot be read.
    """
    if state is None:
        return {}
    if state.path.parent.resolve() != run.states.resolve() or not run.config_file.is_file():
        # A state of another run says only what decides the result.
        return state.settings
    return dict(load_config(run.config_file, {}, run.path).training)


def with_earlier_choices(config: Config, earlier: Mapping[str, Any], emit: Emit) -> Config:
    """Return the config with what the run's earlier part chose where nothing is set now."""
    kept = {
        name: earlier[name]
        for name in CHOOSABLE
        if name in earlier
        and config.origins.get(name, "default") == "default"
        and earlier[name] != getattr(config.training, name)
    }
    for name, value in kept.items():
        emit(SettingChosen(name=name, value=value, reason="the run began with it"))
    return with_choices(config, kept, "the earlier part of the run")


def with_choices(config: Config, values: Mapping[str, object], origin: str) -> Config:
    """Return the config with settings that the program chose, and where they come from."""
    origins = {**config.origins, **dict.fromkeys(values, origin)}
    return replace(config.with_training(**values), origins=origins)


def _reason(found: Fit, card: Card) -> str:
    does = "the run fits" if found.fits else "the run comes as near as can be to fitting"
    return f"so that {does} {card.name} ({format_bytes(card.usable_bytes)} can be used)"
