"""From settings to a model in memory and its networks on their device."""

from __future__ import annotations

from accelerate import Accelerator

from sdft.config.training import TrainingSettings
from sdft.events import Emit
from sdft.jobs.training.device_use import DeviceUse
from sdft.jobs.training.hypernetworks import hypernetwork_of
from sdft.jobs.training.machine import weight_dtype
from sdft.jobs.training.networks import Networks
from sdft.jobs.training.preparing import prepare_networks
from sdft.jobs.training.wishes import (
    apply_attention,
    average_wishes,
    chunk_wishes,
    rate_wishes,
    shard_wishes,
    trained_precision,
)
from sdft.models.bundle import ModelBundle, load_bundle
from sdft.train.optimizer_words import parse_arguments


def load_model(settings: TrainingSettings) -> ModelBundle:
    """Return the base model.

    Raises: what `load_bundle` raises.
    """
    assert settings.pretrained_model_name_or_path is not None, "the check of the settings asks"
    return load_bundle(
        settings.pretrained_model_name_or_path,
        vae_path=settings.vae,
        v2=settings.v2,
        v_parameterization=settings.v_parameterization,
    )


def networks_of(
    settings: TrainingSettings,
    bundle: ModelBundle,
    accelerator: Accelerator,
    use: DeviceUse,
    emit: Emit,
) -> Networks:
    """Return the networks on their device, as the settings want them.

    Raises: what `prepare_networks` raises.
    """
    apply_attention(settings, bundle, accelerator, emit)
    if settings.hypernetwork:
        return hypernetwork_of(settings, bundle, accelerator, use, emit)
    return prepare_networks(
        bundle,
        accelerator,
        train_text_encoder=settings.train_text_encoder,
        learning_rate=settings.learning_rate,
        learning_rate_te=settings.learning_rate_te,
        optimizer_type=settings.optimizer_type,
        optimizer_arguments=parse_arguments(settings.optimizer_args, where="optimizer_args"),
        clip_skip=settings.clip_skip,
        frozen_dtype=weight_dtype(accelerator.mixed_precision),
        emit=emit,
        wishes=rate_wishes(settings),
        precision=trained_precision(settings, accelerator, emit),
        average=average_wishes(settings),
        chunks=chunk_wishes(settings),
        use=use,
        shards=shard_wishes(settings),
        seed=settings.seed or 0,
    )
