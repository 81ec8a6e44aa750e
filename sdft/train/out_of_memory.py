"""What happens when the device has no room for a step.

In: the error and the sizes in use. Out: smaller micro-batches, or an error that says what would
free how much. Smaller micro-batches with more accumulation give the same gradient but for the
last bits, because each item weighs the same in its step either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from sdft.errors import EnvironmentFault
from sdft.train.plain_tensors import tensor_bytes
from sdft.units import format_bytes

_CPU_WORDS = "DefaultCPUAllocator"
"""Stands in the message of a RuntimeError, because torch has no class for it on a CPU."""

_ADAM_STATE_BYTES = 8
"""Of one weight: two float32 moments."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_WORDS in str(error)


def smaller(sizes: Sequence[int], dataset: int) -> tuple[int, ...] | None:
    """Return the micro-batches with half as many items of one dataset; None where that was 1."""
    if sizes[dataset] <= 1:
        return None
    return tuple(-(-size // 2) if i == dataset else size for i, size in enumerate(sizes))


def free_what_is_left(optimizer: Any) -> None:
    """Forget the gradients of the step that failed and give back what is not in use."""
    optimizer.zero_grad(set_to_none=True)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def memory_fault(
    *,
    where: str,
    parameters: Sequence[Parameter],
    optimizer_state: Mapping[str, Any],
    micro_batch: int,
    device: torch.device,
    holds_gradients: bool = True,
) -> EnvironmentFault:
    """Return the error that says what takes the memory and what would free how much.

    `holds_gradients` says that those of all weights exist at once.
    """
    weights = sum(one.numel() * one.element_size() for one in parameters)
    count = sum(one.numel() for one in parameters)
    state = tensor_bytes(optimizer_state)
    advice = []
    if state >= _ADAM_STATE_BYTES * count:
        freed = format_bytes(state - 2 * count)
        advice.append(f"optimizer_type AdamW8bit frees {freed}")
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        rest = max(peak - (2 if holds_gradients else 1) * weights - state, 0)
        advice.append(
            f"gradient_checkpointing frees most of the {format_bytes(rest)} that a pass over"
            f" {micro_batch} images takes besides; so does a smaller resolution"
        )
        if weights == 4 * count:
            freed = format_bytes((4 if holds_gradients else 2) * count)
            advice.append(f"full_bf16 frees {freed} of weights and gradients")
    if micro_batch > 1 and holds_gradients:
        advice.append("a smaller train_batch_size with more gradient_accumulation_steps")
    elif micro_batch > 1:
        advice.append("a smaller train_batch_size")
    advice.append("cache_latents, and a frozen text encoder, if they are not set yet")
    return EnvironmentFault(
        what=f"no room on {device}: weights take {format_bytes(weights)},"
        f"{' their gradients as much,' if holds_gradients else ''}"
        f" the optimizer's state {format_bytes(state)}",
        where=where,
        fix="; ".join(advice),
        key="no_room_on_device",
        values={"device": device, "weights": format_bytes(weights), "state": format_bytes(state)},
    )
