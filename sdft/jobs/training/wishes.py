"""From settings to what the networks are prepared with: rates, precision, average, attention."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from sdft.config.training import TrainingSettings
from sdft.events import Emit, Notice, SettingChosen
from sdft.jobs.training.chunking import ChunkWishes
from sdft.jobs.training.networks import AverageWishes, TrainedPrecision
from sdft.jobs.training.sharding import ShardWishes
from sdft.models.attention import choose_attention, set_attention
from sdft.models.bundle import ModelBundle
from sdft.train.parts import RateWishes


def rate_wishes(settings: TrainingSettings) -> RateWishes:
    """Return what was asked of single weights' learning rates."""
    pairs = [entry.rpartition("=") for entry in settings.lr_by_name]
    return RateWishes(
        freeze=settings.freeze,
        by_name=tuple((pattern, float(rate)) for pattern, _, rate in pairs),
        by_block=settings.block_lr,
    )


def average_wishes(settings: TrainingSettings) -> AverageWishes | None:
    """Return how the moving average is kept, or None without one."""
    if not settings.ema:
        return None
    return AverageWishes(decay=settings.ema_decay, on_cpu=settings.ema_device == "cpu")


def chunk_wishes(settings: TrainingSettings) -> ChunkWishes:
    """Return how the optimizer's memory is kept small."""
    return ChunkWishes(
        fused_backward=settings.fused_backward_pass,
        states_on_cpu=settings.optimizer_states_on_cpu,
        max_grad_norm=settings.max_grad_norm,
    )


def shard_wishes(settings: TrainingSettings) -> ShardWishes | None:
    """Return how weights are spread over the processes, or None where each holds all."""
    if not settings.fsdp:
        return None
    return ShardWishes(reshard_after_forward=settings.fsdp_reshard_after_forward)


def scales_loss(settings: TrainingSettings) -> bool:
    """Tell whether the loss is scaled here and not by accelerate.

    Its scaler refuses gradients in fp16, and knows only optimizers of torch's kind, not those that
    step part by part.
    """
    in_parts = settings.optimizer_states_on_cpu and settings.mixed_precision == "fp16"
    return settings.full_fp16 or in_parts


def trained_precision(
    settings: TrainingSettings, accelerator: Accelerator, emit: Emit
) -> TrainedPrecision:
    """Return in what the trained weights are kept; a wish that the device denies is said."""
    if settings.full_bf16:
        return TrainedPrecision(
            weights=torch.bfloat16, stochastic_rounding=settings.stochastic_rounding
        )
    if settings.full_fp16 and accelerator.mixed_precision != "fp16":
        reason = "a CPU does not train in fp16"
        emit(SettingChosen(name="full_fp16", value=False, reason=reason))
    elif settings.full_fp16:
        return TrainedPrecision(weights=torch.float16, scales_loss=True)
    return TrainedPrecision(
        scales_loss=scales_loss(settings) and accelerator.mixed_precision == "fp16"
    )


def apply_attention(
    settings: TrainingSettings, bundle: ModelBundle, accelerator: Accelerator, emit: Emit
) -> None:
    """Give the U-Net the attention that was asked for, or the best there is, and say which."""
    choice = choose_attention(
        xformers=settings.attention == "xformers",
        device=accelerator.device,
        upcast=bool(bundle.unet.config.upcast_attention) or bundle.family.upcast_attention,
    )
    set_attention(bundle.unet, choice)
    emit(Notice(severity="info", topic="attention", message=choice.words()))
