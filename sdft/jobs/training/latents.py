"""The latents of a planned dataset: found in the cache, encoded now, or left to each step.

In: a Config, a PlannedDataset, a loaded VAE. Out: CachedLatents, and what reads them in training.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdft.cache.encoders import VaeEncoder
from sdft.cache.half_vae import HalfVaeEncoder
from sdft.cache.keys import LatentKind, LatentRecipe
from sdft.cache.latents import KeyTable, LatentCacheResult, LatentRules, cache_latents
from sdft.cache.pipeline import num_cores
from sdft.cache.shard import StoredDtype
from sdft.cache.store import TensorStore
from sdft.config.load import Config
from sdft.config.training import TrainingSettings
from sdft.dataset.picture_workers import PictureWorkers
from sdft.dataset.records import BucketPlan, Rejected
from sdft.dataset.tables import PlacementTable
from sdft.errors import DataError
from sdft.events import Emit, Notice
from sdft.jobs.sources import PlannedDataset, interpolations, is_flipped, picture_rules
from sdft.jobs.stores import file_digests, tensor_store
from sdft.jobs.training.machine import weight_dtype
from sdft.jobs.training.team import ONLY_ONE, Team
from sdft.models.bundle import ModelBundle
from sdft.models.digest import weights_digest
from sdft.train.latents import LatentSource

DTYPE_NAMES: dict[torch.dtype, StoredDtype] = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedLatents:
    """Where the latents of a plan lie."""

    store: TensorStore
    keys: KeyTable
    """One for each placement, in the plan's order; live where nothing is stored."""
    rejected: tuple[Rejected, ...]
    """Images whose pixels could not be read."""
    kind: LatentKind
    """What is stored: mean and log-variance, one draw, or the mean."""
    encoded: int
    reused: int
    images: int

    @property
    def cache(self) -> Path:
        return self.store.place


def cached_latents(
    config: Config,
    dataset: PlannedDataset,
    bundle: ModelBundle,
    *,
    accelerator: Accelerator,
    emit: Emit,
    team: Team = ONLY_ONE,
) -> CachedLatents:
    """Encode what the cache lacks, each process its share, and return where everything lies.

    The VAE is on the device only while it encodes. Images that change on every use, or all of them
    without `cache_latents`, are left to the training steps.

    Raises: DataError where too many images, or all, turn out to be unreadable; what
        `cache_latents` raises.
    """
    settings = config.training
    store = tensor_store(config, "latents", emit)
    kind: LatentKind = "moments" if settings.cache_moments else settings.latent_kind
    live = live_subsets(config)
    placements = PlacementTable.of(dataset.plan.placements)
    kept_numbers = [
        number
        for number, (dataset_number, subset) in enumerate(placements.item_places.tolist())
        if (dataset_number, subset) not in live
    ]
    kept = placements.take(kept_numbers)
    if not len(kept):
        return CachedLatents(
            store=store,
            keys=KeyTable.empty(len(placements), live=True),
            rejected=(),
            kind=kind,
            encoded=0,
            reused=0,
            images=0,
        )
    emit(
        Notice(severity="info", topic="cache", message=f"latents are kept in {store.place.parent}")
    )
    takes_npz = settings.cache_latents_to_disk and kind == "sample"
    if takes_npz:
        message = (
            "latents in .npz files beside the images (cache_latents_to_disk) are taken where they"
            " fit; such a file does not say which VAE made it"
        )
        emit(Notice(severity="info", topic="cache", message=message))
    dtype = vae_dtype(settings, accelerator)
    recipe = LatentRecipe(
        vae_digest=weights_digest(bundle.vae.state_dict()),
        vae_dtype=DTYPE_NAMES[dtype],
        kind=kind,
        dtype=settings.cache_dtype,
    )
    # One process remembers what was read.
    remembered = file_digests(config, emit) if team.is_main else nullcontext()
    with remembered as digests:
        result = cache_latents(
            BucketPlan(placements=kept),
            store=store,
            digests=digests,
            recipe=recipe,
            rules=latent_rules(config),
            load_encoder=lambda: vae_encoder(bundle, accelerator, dtype, emit),
            vae_batch_size=settings.vae_batch_size,
            emit=emit,
            max_workers=max(1, settings.max_data_loader_n_workers // team.size),
            # One bad file among a few is no reason to stop; it is named either way.
            max_rejected=max(1, int(len(kept) * settings.max_rejected_share)),
            takes_npz=takes_npz,
            crew=team,
        )
    team.from_main(lambda: _require_some(result, len(placements)))
    keys = result.keys
    if len(kept) < len(placements):
        keys = keys.spread(kept_numbers, len(placements))
    return CachedLatents(
        store=store,
        keys=keys,
        rejected=result.rejected,
        kind=kind,
        encoded=result.encoded,
        reused=result.reused,
        images=result.images,
    )


def _require_some(result: LatentCacheResult, num_images: int) -> None:
    if len(result.rejected) == num_images:
        raise DataError(what=f"none of {num_images} images can be read")


def latent_source(
    settings: TrainingSettings,
    latents: CachedLatents,
    bundle: ModelBundle,
    accelerator: Accelerator,
    emit: Emit,
) -> LatentSource:
    """Return what gives a run its latents. The VAE stays on the device where it needs pixels."""
    is_live = bool(latents.keys.live_N.any())
    cores = max(1, num_cores() // accelerator.num_processes)
    dtype = vae_dtype(settings, accelerator)
    return LatentSource(
        read_latents=latents.store.read,
        fetch_latents=latents.store.fetch,
        holds_moments=latents.kind == "moments",
        draw=settings.latent_kind,
        workers=PictureWorkers(min(settings.max_data_loader_n_workers, cores) if is_live else 0),
        encoder=vae_encoder(bundle, accelerator, dtype, emit) if is_live else None,
        encode_batch_size=settings.vae_batch_size,
        stops_at_failure=settings.unreadable_image == "stop",
    )


def live_subsets(config: Config) -> frozenset[tuple[int, int]]:
    """Return the subsets, by (dataset, subset), whose latents are made on each use."""
    return frozenset(
        place
        for place, rules in picture_rules(config.datasets).items()
        if rules.change_each_use or not config.training.cache_latents
    )


def vae_dtype(settings: TrainingSettings, accelerator: Accelerator) -> torch.dtype:
    """Return what the VAE computes in."""
    return torch.float32 if settings.no_half_vae else weight_dtype(accelerator.mixed_precision)


def vae_encoder(
    bundle: ModelBundle, accelerator: Accelerator, dtype: torch.dtype, emit: Emit
) -> VaeEncoder | HalfVaeEncoder:
    """Return the VAE on the device, as a copy: the bundle's own goes into checkpoints bit by bit,
    and would not come back whole from a lower precision."""

    def copied(to_dtype: torch.dtype) -> AutoencoderKL:
        vae = copy.deepcopy(bundle.vae)
        # diffusers' own `to` warns of every change of dtype, even of one that changes nothing.
        torch.nn.Module.to(vae, accelerator.device, to_dtype)
        if accelerator.device.type == "cuda":
            vae.to(memory_format=torch.channels_last)
        return vae

    def tell() -> None:
        message = (
            "the VAE leaves the range of fp16 on some pictures; those are encoded in float32"
            " (no_half_vae does it for all)"
        )
        emit(Notice(severity="warning", topic="vae", message=message))

    if dtype != torch.float16:
        return VaeEncoder(copied(dtype))
    return HalfVaeEncoder(
        copied(dtype), load_whole_vae=lambda: copied(torch.float32), tell_once=tell
    )


def latent_rules(config: Config) -> dict[tuple[int, int], LatentRules]:
    """Return what each subset asks of its latents, by (dataset, subset)."""
    flipped = is_flipped(config.datasets)
    return {
        place: LatentRules(flip=flipped[place], interpolation=interpolation)
        for place, interpolation in interpolations(config.datasets).items()
    }
