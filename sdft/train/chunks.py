"""Steps an optimizer over a part of the weights at a time.

In: parameter groups and what builds an optimizer. Out: a ChunkedOptimizer, whose chunks step when
they are told to: all in `step`, or each as soon as its gradients are whole (`fused_backward`).

For the length of a chunk's step its weights and gradients lie in one float32 tensor each, so the
memory for it is that of one chunk, one call of the optimizer serves hundreds of weights, and
bfloat16 weights are updated as if they were float32. Afterwards they are rounded by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from sdft.streams import seed64
from sdft.train.rounding import round_stochastically
from sdft.train.state_offload import HostStates

CHUNK_ELEMENTS = 1 << 24
"""64 MiB of float32. A larger weight is a chunk of its own; the largest of SD has 29.5 million."""

ALIGNED_ELEMENTS = 256
"""Weights begin at multiples of this. bitsandbytes shares one scale among so many neighbours, and
no two weights may share one."""

SMALL_ELEMENTS = 4096
"""Smaller weights keep float32 states under an 8-bit optimizer. Source: its min_8bit_size."""

Build = Callable[[Sequence[Mapping[str, Any]], bool], torch.optim.Optimizer]
"""Makes an optimizer over groups; the flag says that these weights are small."""


@dataclass(kw_only=True)
class Chunk:
    """Some weights of one group, with an optimizer of their own."""

    number: int
    weights: list[Parameter]
    one_tensor: bool
    """Whether the optimizer sees all weights as one tensor without a shape."""
    stand_ins: list[Parameter]
    """What the optimizer sees: one for all weights, or one for each. They hold values only during
    a step."""
    optimizer: torch.optim.Optimizer
    offsets: list[int]
    """Of each weight in the flat tensor."""
    num_elements: int
    """Of the flat tensor, gaps included."""
    num_ready: int = 0
    """Weights whose gradient is whole in the step under way."""
    squared_norms: list[Tensor] = field(default_factory=list)
    """Of each weight's gradient before clipping."""


class ChunkedOptimizer:
    """Looks like an optimizer over all weights, and is one for each chunk.

    `one_tensor` says that the update of a value looks at no other value, so that a chunk can be
    stepped as one tensor. `rounding_seed` asks for stochastic rounding; each chunk of each step
    draws from a generator of its own, so the order in which they step changes nothing.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        build: Build,
        *,
        one_tensor: bool,
        eight_bit: bool,
        rounding_seed: int | None = None,
        states_on_cpu: bool = False,
    ) -> None:
        self.chunks = [
            _chunk(number, group, weights, build, one_tensor=one_tensor, eight_bit=eight_bit)
            for number, (group, weights) in enumerate(_parts(groups, apart=eight_bit))
        ]
        self._rounding_seed = rounding_seed
        self._host = HostStates([one.optimizer for one in self.chunks]) if states_on_cpu else None
        self.num_steps = 0
        """Done so far; part of the state, since rounding depends on it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for chunk in self.chunks for group in chunk.optimizer.param_groups]

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        """What of the state lies with the weights, by stand-in; none of what is kept elsewhere."""
        if self._host is not None:
            return {}
        return {key: one for chunk in self.chunks for key, one in chunk.optimizer.state.items()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        assert set_to_none
        for chunk in self.chunks:
            for weight in chunk.weights:
                weight.grad = None

    def step(self) -> None:
        """Step every chunk that has gradients, and use them up."""
        for chunk in self.chunks:
            self.step_chunk(chunk)
        self.finish()

    def finish(self) -> None:
        """End a step in which each chunk was stepped."""
        self.num_steps += 1

    @torch.no_grad()
    def step_chunk(self, chunk: Chunk, *, max_norm: float | None = None) -> None:
        """Step the weights of one chunk and use their gradients up.

        `max_norm` asks for the norm of each weight's gradient, and bounds it; 0 does not bound.
        """
        with_gradient = [one.grad is not None for one in chunk.weights]
        if not any(with_gradient):
            return
        assert all(with_gradient), "a chunk of which some weights got no gradient"
        gradients = [one.grad for one in chunk.weights if one.grad is not None]
        if max_norm is not None:
            chunk.squared_norms = _clip_each(gradients, max_norm)
        values_N, values = self._flat(chunk, chunk.weights)
        gradients_N, flat_gradients = self._flat(chunk, gradients)
        del gradients
        for weight in chunk.weights:
            weight.grad = None
        if chunk.one_tensor:
            values, flat_gradients = [values_N], [gradients_N]
        for stand_in, value, gradient in zip(chunk.stand_ins, values, flat_gradients, strict=True):
            stand_in.data, stand_in.grad = value, gradient
        if self._host is not None:
            self._host.bring(chunk.number)
        step_without_waiting(chunk.optimizer)
        if self._host is not None:
            self._host.take_back(chunk.number)
        for stand_in in chunk.stand_ins:
            stand_in.grad = None
            stand_in.data = torch.empty(0, dtype=torch.float32, device=values_N.device)
        del gradients_N, flat_gradients, values
        self._write_back(chunk, values_N)

    def state_dict(self) -> dict[str, Any]:
        if self._host is not None:
            self._host.wait()
        states = [chunk.optimizer.state_dict() for chunk in self.chunks]
        return {"chunks": states, "num_steps": self.num_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises: ValueError or KeyError for the state of other weights or of no chunks.
        """
        for chunk, one in zip(self.chunks, state["chunks"], strict=True):
            chunk.optimizer.load_state_dict(one)
            if self._host is not None:
                # One after the other: the device may have no room for all of them.
                self._host.take_over(chunk.number)
        self.num_steps = int(state["num_steps"])

    def _flat(self, chunk: Chunk, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return float32 copies in one tensor, and the view of it that each one is.

        Values lie in the order of their indices, whatever the strides of the weights: states and
        draws of rounding belong to places in this tensor, and a resumed run may have weights of
        another layout.
        """
        flat_N = torch.zeros(
            chunk.num_elements, dtype=torch.float32, device=chunk.weights[0].device
        )
        views = _views(flat_N, chunk)
        torch._foreach_copy_(views, list(tensors))
        return flat_N, views

    def _write_back(self, chunk: Chunk, values_N: Tensor) -> None:
        if self._rounding_seed is not None:
            generator = torch.Generator(values_N.device)
            address = (self._rounding_seed, "rounding", self.num_steps, chunk.number)
            generator.manual_seed(seed64(*address))
            values_N = round_stochastically(values_N, generator)
        torch._foreach_copy_([one.data for one in chunk.weights], _views(values_N, chunk))


def step_without_waiting(optimizer: Any) -> None:
    """Step the optimizer; one of bitsandbytes without its wait for the device after each weight.

    Only the paged ones need that wait: their state may lie in main memory.
    """
    if not hasattr(optimizer, "update_step") or getattr(optimizer, "is_paged", False):
        optimizer.step()
        return
    if not optimizer.initialized:
        optimizer.check_overrides()
        optimizer.to_gpu()
        optimizer.initialized = True
    for group_number, group in enumerate(optimizer.param_groups):
        for number, weight in enumerate(group["params"]):
            if weight.grad is None:
                continue
            if not optimizer.state[weight]:
                optimizer.init_state(group, weight, group_number, number)
            optimizer.update_step(group, weight, group_number, number)


def _clip_each(gradients: list[Tensor], max_norm: float) -> list[Tensor]:
    """Bound the norm of each gradient in place, if not by 0; return the squared norms before."""
    norms = list(torch._foreach_norm(gradients, 2, torch.float32))
    if max_norm > 0:
        # The small number is that of torch.nn.utils.clip_grad_norm_.
        factors_W = (max_norm / (torch.stack(norms) + 1e-6)).clamp_(max=1.0)
        torch._foreach_mul_(gradients, list(factors_W.to(gradients[0].dtype).unbind()))
    return list(torch._foreach_mul(norms, norms))


def _views(flat_N: Tensor, chunk: Chunk) -> list[Tensor]:
    return [
        flat_N[start : start + weight.numel()].view(weight.shape)
        for weight, start in zip(chunk.weights, chunk.offsets, strict=True)
    ]


def _parts(
    groups: Sequence[Mapping[str, Any]], *, apart: bool
) -> Iterator[tuple[Mapping[str, Any], list[Parameter]]]:
    """Yield the weights of each group in parts, the last first: so their gradients arrive.

    With `apart` small weights come in parts of their own.
    """
    for group in groups:
        weights = list(reversed(group["params"]))
        small = [one for one in weights if apart and one.numel() < SMALL_ELEMENTS]
        kept = {id(one) for one in small}
        for kind in ([one for one in weights if id(one) not in kept], small):
            part: list[Parameter] = []
            size = 0
            for weight in kind:
                if part and size + weight.numel() > CHUNK_ELEMENTS:
                    yield group, part
                    part, size = [], 0
                part.append(weight)
                size += weight.numel()
            if part:
                yield group, part


def _chunk(
    number: int,
    group: Mapping[str, Any],
    weights: list[Parameter],
    build: Build,
    *,
    one_tensor: bool,
    eight_bit: bool,
) -> Chunk:
    offsets, end = [], 0
    for weight in weights:
        offsets.append(end)
        end += -(-weight.numel() // ALIGNED_ELEMENTS) * ALIGNED_ELEMENTS
    small = eight_bit and weights[0].numel() < SMALL_ELEMENTS
    nothing = torch.empty(0, dtype=torch.float32, device=weights[0].device)
    stand_ins = [Parameter(nothing.clone()) for _ in ([0] if one_tensor else weights)]
    return Chunk(
        number=number,
        weights=weights,
        one_tensor=one_tensor,
        stand_ins=stand_ins,
        optimizer=build([{**group, "params": stand_ins}], small),
        offsets=offsets,
        num_elements=end,
    )
