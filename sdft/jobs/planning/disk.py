"""What a run will write, in bytes. Needs no torch."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path

from sdft.cache.keys import LatentKind, LatentRecipe
from sdft.cache.latents import LatentRules, foreseen_bytes
from sdft.config.folders import output_folder
from sdft.config.load import Config
from sdft.config.training import TrainingSettings
from sdft.dataset.tables import PlacementTable
from sdft.jobs.ordering import RunLength
from sdft.jobs.planning.asking import PlannedModel, Shape, Use, memory_question
from sdft.jobs.saving_rules import save_rules
from sdft.jobs.sources import interpolations, is_flipped
from sdft.jobs.training.disk_needs import DiskNeeds, held_bytes

BYTES_OF_PRECISION = {"float": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlan:
    """Sizes in bytes."""

    latents: int
    """Of all images; less is written where some are in the cache already."""
    contexts: int
    checkpoint: int
    """Of one."""
    state: int
    """Of one."""
    most: int
    """Of all that is held at once: caches, checkpoints and states."""
    free: int
    """Where checkpoints go."""

    def as_json(self) -> dict[str, int]:
        return {
            "latents_bytes": self.latents,
            "contexts_bytes": self.contexts,
            "checkpoint_bytes": self.checkpoint,
            "state_bytes": self.state,
            "most_bytes": self.most,
            "free_bytes": self.free,
        }


def plan_disk(
    config: Config,
    model: PlannedModel,
    use: Use,
    length: RunLength,
    cached: PlacementTable,
    *,
    contexts_bytes: int,
) -> DiskPlan:
    """Return what a run writes; `cached` are the placements whose latents are kept."""
    settings = config.training
    checkpoint, state = _model_bytes(settings, model), _state_bytes(settings, model, use)
    rules, state_rules = save_rules(settings, length.num_epochs)
    held = held_bytes(
        DiskNeeds(
            first_step=0,
            total_steps=length.total_steps,
            num_epochs=length.num_epochs,
            steps_through=length.order.steps_through,
            checkpoints=rules,
            checkpoint_bytes=checkpoint,
            state_rules=state_rules,
            state_bytes=state,
            keeps_rolling_state=not settings.no_rolling_state,
            state_at_end=settings.save_state or settings.save_state_on_train_end,
        )
    )
    latents = _latents_bytes(config, cached)
    return DiskPlan(
        latents=latents,
        contexts=contexts_bytes,
        checkpoint=checkpoint,
        state=state,
        most=latents + contexts_bytes + max(total for _, total in held),
        free=_free_bytes(output_folder(config) if settings.output_dir else None),
    )


def _latents_bytes(config: Config, cached: PlacementTable) -> int:
    settings = config.training
    kind: LatentKind = "moments" if settings.cache_moments else settings.latent_kind
    recipe = LatentRecipe(vae_digest="", vae_dtype="", kind=kind, dtype=settings.cache_dtype)
    flipped, ways = is_flipped(config.datasets), interpolations(config.datasets)
    rules = {
        place: LatentRules(flip=flipped[place], interpolation=ways[place]) for place in flipped
    }
    return foreseen_bytes(cached, recipe, rules)


def _model_bytes(settings: TrainingSettings, model: PlannedModel) -> int:
    sizes = model.sizes
    shapes = [
        *sizes.unet.tensors().values(),
        *sizes.text_encoder.tensors().values(),
        *sizes.vae.tensors().values(),
    ]
    return sum(map(prod, shapes)) * BYTES_OF_PRECISION.get(settings.save_precision or "", 4)


def _state_bytes(settings: TrainingSettings, model: PlannedModel, use: Use) -> int:
    question = memory_question(settings, model, use, Shape(64, 64, 1))
    trained = sum(map(prod, model.sizes.unet.tensors().values()))
    if settings.train_text_encoder:
        trained += sum(map(prod, model.sizes.text_encoder.tensors().values()))
    weight = 2 if question is not None and question.half_weights else 4
    average = 4 if settings.ema else 0
    # Of an optimizer that is not known: two numbers a weight, as Adam's.
    shapes = [*model.sizes.unet.tensors().values()]
    if settings.train_text_encoder:
        shapes += model.sizes.text_encoder.tensors().values()
    states = sum(map(question.optimizer.state_bytes, shapes)) if question else 8 * trained
    return trained * (weight + average) + states


def _free_bytes(folder: Path | None) -> int:
    existing = (folder or Path.cwd()).absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free
