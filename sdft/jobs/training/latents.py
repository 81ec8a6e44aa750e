"""The latents of a planned dataset: found in the cache, or encoded now.

In: a Config, a PlannedDataset, a loaded VAE. Out: CachedLatents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdft.cache.digests import FileDigests
from sdft.cache.encoders import VaeEncoder
from sdft.cache.keys import LatentRecipe
from sdft.cache.latents import LatentKeys, LatentRules, cache_latents
from sdft.cache.store import TensorStore
from sdft.config.load import Config
from sdft.dataset.records import Rejected
from sdft.errors import DataError
from sdft.events import Emit, Notice
from sdft.jobs.sources import PlannedDataset, folder_of, interpolations, is_flipped
from sdft.jobs.training.machine import weight_dtype
from sdft.models.bundle import ModelBundle
from sdft.models.digest import weights_digest

DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedLatents:
    """Where the latents of a plan lie."""

    store: TensorStore
    keys: tuple[LatentKeys, ...]
    """One for each placement, in the plan's order."""
    rejected: tuple[Rejected, ...]
    """Images whose pixels could not be read."""
    holds_moments: bool
    """Whether mean and log-variance are stored instead of one draw."""
    encoded: int
    reused: int
    images: int

    @property
    def cache(self) -> Path:
        return self.store.folder


def cached_latents(
    config: Config,
    dataset: PlannedDataset,
    bundle: ModelBundle,
    *,
    accelerator: Accelerator,
    emit: Emit,
) -> CachedLatents:
    """Encode what the cache lacks and return where everything lies.

    The VAE is on the device only while it encodes.

    Raises: DataError where too many images, or all, turn out to be unreadable; what
        `cache_latents` raises.
    """
    settings = config.training
    folder = cache_folder(config)
    dtype = torch.float32 if settings.no_half_vae else weight_dtype(accelerator.mixed_precision)
    emit(Notice(severity="info", topic="cache", message=f"latents are kept in {folder}"))
    store = TensorStore(folder / "latents")
    recipe = LatentRecipe(
        vae_digest=weights_digest(bundle.vae.state_dict()),
        vae_dtype=DTYPE_NAMES[dtype],
        kind="sample",
        dtype=settings.cache_dtype,
    )

    def load_encoder() -> VaeEncoder:
        return VaeEncoder(_moved(bundle.vae, accelerator.device, dtype))

    placements = dataset.plan.placements
    with FileDigests(folder / "digests.sqlite") as digests:
        result = cache_latents(
            dataset.plan,
            store=store,
            digests=digests,
            recipe=recipe,
            rules=latent_rules(config),
            load_encoder=load_encoder,
            vae_batch_size=settings.vae_batch_size,
            emit=emit,
            max_workers=settings.max_data_loader_n_workers or 1,
            # One bad file among a few is no reason to stop; it is named either way.
            max_rejected=max(1, int(len(placements) * settings.max_rejected_share)),
        )
    _moved(bundle.vae, torch.device("cpu"), torch.float32)
    if len(result.rejected) == len(placements):
        raise DataError(what=f"none of {len(placements)} images can be read")
    return CachedLatents(
        store=store,
        keys=result.keys,
        rejected=result.rejected,
        holds_moments=recipe.kind == "moments",
        encoded=result.encoded,
        reused=result.reused,
        images=result.images,
    )


def latent_rules(config: Config) -> dict[tuple[int, int], LatentRules]:
    """Return what each subset asks of its latents, by (dataset, subset)."""
    flipped = is_flipped(config.datasets)
    return {
        place: LatentRules(flip=flipped[place], interpolation=interpolation)
        for place, interpolation in interpolations(config.datasets).items()
    }


def cache_folder(config: Config) -> Path:
    """Return where latents are kept: as set, or beside the file that names the images."""
    return config.training.cache_dir or folder_of(config) / ".sdft-cache"


def _moved(vae: AutoencoderKL, device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    # diffusers' own `to` warns of every change of dtype, even of one that changes nothing.
    torch.nn.Module.to(vae, device, dtype)
    return vae
