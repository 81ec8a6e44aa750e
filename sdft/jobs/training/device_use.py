"""How a run uses its device: memory format, what is computed twice, what is compiled.

In: settings, and the U-Net on its device. Out: the U-Net as it is trained; what cannot be had is
said.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdft.config.training import TrainingSettings
from sdft.events import Emit, Notice, SettingChosen
from sdft.models.checkpointing import checkpoint_blocks
from sdft.models.compiling import CompileWishes, compile_unet, why_not_compiled
from sdft.models.offload import Offload

HOPPER = (9, 0)
"""Compute capability."""

WORTH_IT_STEPS = 1000
"""Compiling one shape took almost three minutes on an H100, and saves tenths of a second a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """Trades of memory for time, and what suits the device."""

    gradient_checkpointing: bool = False
    checkpoint_blocks: tuple[str, ...] = ()
    """Of the U-Net; all where none is named."""
    offloads: bool = False
    """Whether what these blocks begin with is kept in main memory."""
    channels_last: bool = False
    compile: CompileWishes | None = None


def device_use(
    settings: TrainingSettings,
    device: torch.device,
    *,
    num_shapes: int,
    total_steps: int,
    emit: Emit,
) -> DeviceUse:
    """Return what the settings ask for, as far as the device can do it."""
    on_gpu = device.type == "cuda"
    if settings.cpu_offload_checkpointing and not on_gpu:
        reason = "on a CPU everything is in main memory"
        emit(SettingChosen(name="cpu_offload_checkpointing", value=False, reason=reason))
    return DeviceUse(
        gradient_checkpointing=settings.gradient_checkpointing,
        checkpoint_blocks=settings.checkpoint_blocks,
        offloads=settings.cpu_offload_checkpointing and on_gpu,
        channels_last=on_gpu if settings.channels_last is None else settings.channels_last,
        compile=_compile_wishes(settings, device, num_shapes, total_steps, emit),
    )


def _compile_wishes(
    settings: TrainingSettings, device: torch.device, num_shapes: int, total_steps: int, emit: Emit
) -> CompileWishes | None:
    if not settings.torch_compile:
        return None
    missing = why_not_compiled(device, settings.dynamo_backend)
    if missing:
        emit(SettingChosen(name="torch_compile", value=False, reason=missing))
        return None
    severity, hint = "info", ""
    if total_steps < WORTH_IT_STEPS * num_shapes:
        severity, hint = "warning", "; so short a run may take longer than without torch_compile"
    message = (
        f"the U-Net is compiled for {num_shapes} resolutions, each at its first step: some minutes"
        f" each time{hint}"
    )
    emit(Notice(severity=severity, topic="compile", message=message))
    return CompileWishes(
        scope=settings.compile_scope,
        backend=settings.dynamo_backend,
        mode=settings.compile_mode,
        # A batch of each resolution may be partial.
        num_shapes=2 * num_shapes,
    )


def use_device(unet: Any, text_encoder: Any | None, wishes: DeviceUse) -> None:
    """Change the networks in place; `text_encoder` is none where it is not trained.

    Raises: ConfigError for a block that is not there.
    """
    if wishes.channels_last:
        unet.to(memory_format=torch.channels_last)
    if wishes.gradient_checkpointing or wishes.checkpoint_blocks:
        call = Offload() if wishes.offloads else None
        checkpoint_blocks(unet, wishes.checkpoint_blocks, call=call)
        if text_encoder is not None:
            # transformers renamed it within version 5.
            enable = getattr(text_encoder, "activation_checkpointing_enable", None)
            (enable or text_encoder.gradient_checkpointing_enable)()
    if wishes.compile is not None:
        compile_unet(unet, wishes.compile)


def attention_kernels(
    settings: TrainingSettings, device: torch.device
) -> Callable[[], AbstractContextManager[Any]]:
    """Return what surrounds a step: on Hopper and newer GPUs cuDNN's attention comes first.

    On an H100 it took 10.8 ms where flash attention took 17.3 ms (64 images of 512 px, the largest
    self-attention of SD 2.x, forward and backward). It does not repeat to the same bits.
    """
    if device.type != "cuda" or settings.deterministic or settings.attention == "xformers":
        return nullcontext
    if torch.cuda.get_device_capability(device) < HOPPER:
        return nullcontext
    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    return partial(sdpa_kernel, order, set_priority=True)
