"""What a run computes on: the device, its precision, the processes that take part.

In: the settings' wishes. Out: an Accelerator; each wish that cannot be met is answered by an
error, or replaced and said.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdft.config.training import TrainingSettings
from sdft.errors import EnvironmentFault
from sdft.events import Emit, SettingChosen
from sdft.jobs.doctor import device_problem

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


@dataclass(frozen=True, slots=True, kw_only=True)
class DdpWishes:
    """How several processes exchange gradients."""

    gradient_as_bucket_view: bool = False
    static_graph: bool = False
    timeout_s: float | None = None
    """Of one exchange."""


def ddp_wishes(settings: TrainingSettings) -> DdpWishes:
    return DdpWishes(
        gradient_as_bucket_view=settings.ddp_gradient_as_bucket_view,
        static_graph=settings.ddp_static_graph,
        timeout_s=None if settings.ddp_timeout is None else 60 * settings.ddp_timeout,
    )


def build_accelerator(
    *,
    device: str,
    mixed_precision: str,
    deterministic: bool,
    emit: Emit,
    own_scaler: bool = False,
    tf32: bool | None = None,
    ddp: DdpWishes | None = None,
    spreads_weights: bool = False,
) -> Accelerator:
    """Return accelerate's engine for this process.

    `own_scaler` says that the loss is scaled elsewhere, so accelerate must not do it too, and
    `spreads_weights` that no process holds all weights.

    Raises: EnvironmentFault where the device that was asked for cannot be used, or where an
        NVIDIA card is there and torch has been built without it.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import (
        AutocastKwargs,
        DistributedDataParallelKwargs,
        GradScalerKwargs,
    )

    problem = device_problem(device)
    if problem is not None:
        raise EnvironmentFault(problems=[problem])
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    precision = mixed_precision
    if on_cpu and mixed_precision == "fp16":
        precision = "no"
        emit(
            SettingChosen(name="mixed_precision", value="no", reason="a CPU does not train in fp16")
        )
    if deterministic:
        _make_deterministic()
    if not on_cpu:
        _set_tf32(tf32, deterministic=deterministic, emit=emit)
    handlers: list[Any] = [GradScalerKwargs(enabled=False)] if own_scaler else []
    if ddp is not None:
        handlers.append(
            DistributedDataParallelKwargs(
                gradient_as_bucket_view=ddp.gradient_as_bucket_view, static_graph=ddp.static_graph
            )
        )
    if spreads_weights:
        # Autocast would keep a half copy of every weight until the end of the forward pass.
        handlers.append(AutocastKwargs(cache_enabled=False))
    # What its own config asks for has become our settings; it would spread weights besides, but on
    # a CPU, and the libraries that load models would leave those of all processes but one empty.
    os.environ.pop("ACCELERATE_USE_FSDP", None)
    accelerator = Accelerator(mixed_precision=precision, cpu=on_cpu, kwargs_handlers=handlers)
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != asked:
        raise EnvironmentFault(
            what=f"{asked} processes were started, {accelerator.num_processes} found each other",
            fix="start them with torchrun or accelerate launch",
        )
    return accelerator


def weight_dtype(mixed_precision: str) -> torch.dtype:
    """Return the dtype of weights that are not trained."""
    import torch

    return {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[mixed_precision]


def _set_tf32(wanted: bool | None, *, deterministic: bool, emit: Emit) -> None:
    """Let an NVIDIA GPU use TF32, and look for the fastest convolutions, or not."""
    import torch

    tf32 = not deterministic if wanted is None else wanted
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    if wanted is None:
        reason = "deterministic is set" if deterministic else "the GPU can, and it is much faster"
        emit(SettingChosen(name="tf32", value=tf32, reason=reason))


def _make_deterministic() -> None:
    import torch

    # cuBLAS reads this when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
