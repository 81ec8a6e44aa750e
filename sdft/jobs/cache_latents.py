"""`sdft cache-latents`: encode every image once, before any training.

In: a Config. Out: the cache, a CacheLatentsResult.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdft.config.load import Config
from sdft.errors import ConfigError
from sdft.events import Emit
from sdft.jobs.sources import plan_dataset
from sdft.processes import own_place

if TYPE_CHECKING:
    from sdft.cache.upkeep import PruneResult
    from sdft.jobs.training.team import Team


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLatentsResult:
    """What the pass did: images == encoded + reused + rejected."""

    images: int
    encoded: int
    reused: int
    rejected: int
    cache: Path
    prunable: PruneResult | None = None
    """What is in the cache and not used by this config; None where that was not asked."""

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"cache": str(self.cache)}


def run_cache_latents(
    config: Config, *, emit: Emit, prune_cache: bool = False, delete: bool = False
) -> CacheLatentsResult:
    """Index, plan, and encode what the cache lacks.

    With `prune_cache` latents that this config does not use are counted, and with `delete` removed.
    In each process of several: they share the work, and the first one says what is done.

    Raises: SdftError of every kind.
    """
    place = own_place()
    if place.size == 1:
        return _run(config, emit=emit, prune_cache=prune_cache, delete=delete, team=None)
    from sdft.jobs.training.stopping import ended_by_signals
    from sdft.jobs.training.together_start import team_of
    from sdft.jobs.training.visible import require_seen

    with ended_by_signals(), team_of(config, place) as team:
        require_seen(config, team)
        return _run(config, emit=emit, prune_cache=prune_cache, delete=delete, team=team)


def _run(
    config: Config, *, emit: Emit, prune_cache: bool, delete: bool, team: Team | None
) -> CacheLatentsResult:
    settings = config.training
    if settings.pretrained_model_name_or_path is None:
        raise ConfigError(
            what="no model is named, and its VAE makes the latents",
            where="pretrained_model_name_or_path",
            fix="add it to the config or the command line",
        )
    if team is None:
        dataset = plan_dataset(config, emit=emit)
    else:
        dataset = team.from_main(lambda: plan_dataset(config, emit=emit))
    # Heavy: brings torch and diffusers, some 10 s; a mistake in the data is found before.
    from sdft.jobs.training.latents import cached_latents
    from sdft.jobs.training.machine import build_accelerator
    from sdft.jobs.training.team import ONLY_ONE
    from sdft.models.bundle import load_bundle

    team = team or ONLY_ONE

    accelerator = build_accelerator(
        device=settings.device,
        mixed_precision=settings.mixed_precision,
        deterministic=settings.deterministic,
        emit=emit,
    )
    model = settings.pretrained_model_name_or_path
    bundle = team.in_turn(
        lambda: load_bundle(
            model,
            vae_path=settings.vae,
            v2=settings.v2,
            v_parameterization=settings.v_parameterization,
            parts=("vae",),
        )
    )
    latents = cached_latents(config, dataset, bundle, accelerator=accelerator, emit=emit, team=team)
    prunable = None
    if prune_cache and team.is_main:
        from sdft.cache.upkeep import prune

        latents.store.refresh()
        used = [key for keys in latents.keys for key in keys.present]
        prunable = prune(latents.store, used, dry_run=not delete, emit=emit)
    return CacheLatentsResult(
        images=latents.images,
        encoded=latents.encoded,
        reused=latents.reused,
        rejected=len(latents.rejected) + len(dataset.rejected),
        cache=latents.cache,
        prunable=prunable,
    )
