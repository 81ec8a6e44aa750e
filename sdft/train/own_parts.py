"""Updates of weights that are spread over processes (FSDP2): each changes its own rows.

In: spread weights and their gradients. Out: the same with the update made. The optimizer knows
plain tensors that lie where this process' rows lie, so it need not know of the others; only the
norm of the gradient is one of all processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from sdft.models.sharding import joined, local_part, spread_like


class OwnParts:
    """This process' rows of every trained weight."""

    def __init__(self, weights: Sequence[Parameter]) -> None:
        self._weights = tuple(weights)
        self.parts = tuple(Parameter(local_part(one.detach())) for one in weights)

    def groups(self, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return parameter groups with the parts in the place of the weights."""
        by_id = {id(whole): part for whole, part in zip(self._weights, self.parts, strict=True)}
        return [
            {**group, "params": [by_id[id(one)] for one in group["params"]]} for group in groups
        ]

    def take_gradients(self) -> None:
        """Move this process' rows of the gradients from the weights to the parts."""
        for weight, part in zip(self._weights, self.parts, strict=True):
            part.grad = None if weight.grad is None else local_part(weight.grad)
            weight.grad = None

    def clip(self, max_norm: float) -> Tensor:
        """Bound the norm of the whole gradient; return what it was."""
        gradients = [one.grad for one in self.parts if one.grad is not None]
        own_norm = torch.nn.utils.get_total_norm(gradients)
        squares = own_norm.square()
        dist.all_reduce(squares)
        norm = squares.sqrt()
        torch.nn.utils.clip_grads_with_norm_(self.parts, max_norm, norm)
        return norm

    def joined_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return an optimizer's state with tensors that know of all processes' rows."""
        return self._with_states(state, lambda weight, value: joined(value, weight), self.parts)

    def own_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return this process' part of an optimizer's whole state."""
        return self._with_states(
            state, lambda weight, value: local_part(spread_like(weight, value)), self._weights
        )

    def _with_states(self, state: Mapping[str, Any], change: Any, shaped: Any) -> dict[str, Any]:
        """Change the values that have the shape of their weight; counts of steps stay."""
        changed = {
            number: {
                name: change(self._weights[number], value)
                if isinstance(value, Tensor) and value.shape == shaped[number].shape
                else value
                for name, value in values.items()
            }
            for number, values in state["state"].items()
        }
        return {**state, "state": changed}
