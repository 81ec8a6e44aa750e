"""Writes the networks of a run as a model that other programs load.

In: live networks and the settings of saving. Out: a file or folder in the form that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from sdft.config.training import TrainingSettings
from sdft.export.diffusers_folder import save_diffusers_folder
from sdft.export.metadata import modelspec_metadata, thumbnail_url
from sdft.export.single_file import save_single_file
from sdft.files import swap, unfinished_name
from sdft.jobs.training.networks import Networks
from sdft.models.bundle import ModelBundle
from sdft.models.text import text_state_dict
from sdft.train.plain_tensors import on_cpu, tensor_bytes
from sdft.train.schedule import NUM_TIMESTEPS
from sdft.train.state import Progress
from sdft.train.state_write import require_finite


def chosen_form(settings: TrainingSettings, bundle: ModelBundle) -> str:
    """Return the form to save in: as asked, else the form that the base model was in."""
    if settings.save_model_as is not None:
        return settings.save_model_as
    return "safetensors" if settings.use_safetensors else bundle.form


class Content(Protocol):
    """What a checkpoint is written from, at one moment."""

    @property
    def num_bytes(self) -> int: ...
    def copied(self) -> Content: ...


class CheckpointWriter(Protocol):
    """Writes what is trained: a model, or a hypernetwork."""

    @property
    def networks(self) -> Networks: ...
    def content(self, progress: Progress) -> Any: ...
    def __call__(self, path: Path, content: Any) -> int: ...


@dataclass(frozen=True, kw_only=True)
class ModelContent:
    """The weights of a model at one moment."""

    unet: Mapping[str, Tensor]
    text_encoder: Mapping[str, Tensor]
    is_copy: bool = False
    """Whether the tensors are its own, so that training does not change them."""

    @property
    def num_bytes(self) -> int:
        """Return what a copy takes, 0 where this is one."""
        return 0 if self.is_copy else tensor_bytes([dict(self.unet), dict(self.text_encoder)])

    def copied(self) -> ModelContent:
        if self.is_copy:
            return self
        return self.copied_by(on_cpu)

    def copied_by(self, copy: Callable[[Any], Any]) -> ModelContent:
        """Return the same with the copies that `copy` makes of tensors in mappings."""
        return ModelContent(
            unet=copy(self.unet), text_encoder=copy(self.text_encoder), is_copy=True
        )


@dataclass(frozen=True, kw_only=True)
class ModelWriter:
    """Writes the networks as they are when it is called."""

    networks: Networks
    settings: TrainingSettings
    form: str
    resolution: tuple[int, int]
    """Of the first dataset, for the file's metadata."""

    def content(self, progress: Progress) -> ModelContent:
        """Return the networks as they are now; a model says nothing of the progress.

        A moving average, or what a schedule-free optimizer keeps, is what is saved; it stands in
        the networks for a moment only and is copied at once. So is what is spread over processes.
        """
        networks = self.networks
        live = ModelContent(
            unet=networks.plain_unet.state_dict(),
            text_encoder=text_state_dict(networks.plain_text_encoder),
        )
        if networks.gather is None and not networks.saves_other_weights:
            return live
        with networks.evaluation_weights():
            return live.copied_by(networks.gather or on_cpu)

    def __call__(self, path: Path, content: ModelContent) -> int:
        """Write to `path`; return the size in bytes.

        Raises: DataError where a weight is no number.
        """
        modules = {"unet": content.unet, "text_encoder": content.text_encoder}
        require_finite(modules, what_for=path.name)
        return write_model(
            path,
            bundle=self.networks.bundle,
            unet=content.unet,
            text_encoder=content.text_encoder,
            form=self.form,
            save_precision=self.settings.save_precision,
            metadata=metadata_of(self.settings, self.networks.bundle, self.resolution, path),
        )


def metadata_of(
    settings: TrainingSettings, bundle: ModelBundle, resolution: tuple[int, int], path: Path
) -> dict[str, str]:
    """Return what the file at `path` says of itself."""
    timesteps = (settings.min_timestep, settings.max_timestep)
    thumbnail = settings.metadata_thumbnail
    return modelspec_metadata(
        family=bundle.family,
        prediction_type=bundle.prediction_type,
        title=settings.metadata_title or path.stem,
        resolution=resolution,
        date_s=time.time(),
        author=settings.metadata_author,
        description=settings.metadata_description,
        license=settings.metadata_license,
        tags=settings.metadata_tags,
        usage_hint=settings.metadata_usage_hint,
        thumbnail=thumbnail_url(thumbnail) if thumbnail else None,
        merged_from=settings.metadata_merged_from,
        trigger_phrase=settings.metadata_trigger_phrase,
        preprocessor=settings.metadata_preprocessor,
        is_negative_embedding=settings.metadata_is_negative_embedding,
        timestep_range=(None, None) if timesteps == (0, NUM_TIMESTEPS) else timesteps,
        clip_skip=settings.clip_skip,
        base=bundle.metadata,
    )


def write_model(
    path: Path,
    *,
    bundle: ModelBundle,
    unet: Mapping[str, Tensor],
    text_encoder: Mapping[str, Tensor],
    form: str,
    save_precision: str | None,
    metadata: Mapping[str, str],
) -> int:
    """Write a model in one of the four forms; return its size in bytes.

    A file or folder of that name is there until the new one is whole.
    """
    # Training does not renew the base's own moving average, so it would be stale.
    extras = {n: tensor for n, tensor in bundle.extras.items() if not n.startswith("model_ema.")}
    if form in ("diffusers", "diffusers_safetensors"):
        new = unfinished_name(path)
        size_bytes = save_diffusers_folder(
            new,
            unet=unet,
            text_encoder=text_encoder,
            vae=bundle.vae.state_dict(),
            configs=bundle.configs,
            family=bundle.family,
            prediction_type=bundle.prediction_type,
            save_precision=save_precision,
            safetensors=form == "diffusers_safetensors",
            metadata=metadata,
            extras=extras,
        )
        swap(new, path)
        return size_bytes
    return save_single_file(
        path,
        unet=unet,
        text_encoder=text_encoder,
        vae=bundle.vae.state_dict(),
        family=bundle.family,
        form=form,
        save_precision=save_precision,
        metadata=metadata,
        extras=extras,
        scalars=bundle.scalars,
    )
