"""From settings to an optimizer that steps the weights part by part.

In: parameter groups and wishes. Out: a ChunkedOptimizer, and what steps it in the backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sdft.errors import ConfigError
from sdft.events import Emit, Notice, ignore
from sdft.train.chunks import ChunkedOptimizer
from sdft.train.fused_backward import FusedBackward
from sdft.train.optim import build_optimizer, steps_one_by_one, steps_value_by_value


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWishes:
    """What is asked of memory; nothing of it leaves the usual optimizer as it is."""

    fused_backward: bool = False
    states_on_cpu: bool = False
    max_grad_norm: float = 0.0
    """Of each weight's gradient, in a fused backward pass; 0 sets no limit."""

    @property
    def any(self) -> bool:
        return self.fused_backward or self.states_on_cpu


def chunked_optimizer(
    name: str,
    groups: Sequence[Mapping[str, Any]],
    *,
    lr: float,
    arguments: Mapping[str, Any],
    wishes: ChunkWishes,
    rounding_seed: int | None,
    emit: Emit,
) -> ChunkedOptimizer:
    """Return the named optimizer in chunks; `rounding_seed` asks for stochastic rounding.

    Raises: ConfigError for an optimizer that looks at several weights at once, and what
        `build_optimizer` raises.
    """
    first = groups[0]
    probe = build_optimizer(
        name, [{**first, "params": first["params"][:1]}], lr=lr, arguments=arguments, emit=emit
    )
    if not steps_one_by_one(probe):
        setting = "fused_backward_pass" if wishes.fused_backward else "optimizer_states_on_cpu"
        raise ConfigError(
            what=f"{name} looks at all weights at once, so they cannot be changed part by part",
            where=setting,
            fix="use AdamW, AdamW8bit, Lion, Lion8bit or Adafactor",
        )

    def build(part: Sequence[Mapping[str, Any]], small: bool) -> torch.optim.Optimizer:
        return build_optimizer(
            name, part, lr=lr, arguments=arguments, emit=ignore, keeps_32_bits=small
        )

    return ChunkedOptimizer(
        groups,
        build,
        one_tensor=steps_value_by_value(probe),
        eight_bit="8bit" in type(probe).__name__,
        rounding_seed=rounding_seed,
        states_on_cpu=wishes.states_on_cpu,
    )


def fused_backward(
    optimizer: ChunkedOptimizer, wishes: ChunkWishes, emit: Emit
) -> FusedBackward | None:
    """Return what steps the optimizer in the backward pass, if that was asked for."""
    if not wishes.fused_backward:
        return None
    if wishes.max_grad_norm > 0:
        message = (
            f"fused_backward_pass: max_grad_norm {wishes.max_grad_norm:g} bounds the gradient of"
            " each weight on its own, not the norm of all of them"
        )
        emit(Notice(severity="info", topic="memory", message=message))
    return FusedBackward(optimizer, max_grad_norm=wishes.max_grad_norm)
