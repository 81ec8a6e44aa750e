"""Updates of bfloat16 weights that do not vanish: stochastic rounding.

A bfloat16 number has 8 bits, so an update below 1/256 of a weight is lost when it is rounded to
the nearest. Rounded up or down by chance, with the chance that its size asks for, it arrives on
average. Works with every optimizer: for the length of a step the weights are float32.

Source: Zamirai et al. 2020 (arXiv 2010.06192), "Revisiting BFloat16 Training".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from sdft.streams import seed64

_LOW_BITS = 16
"""What float32 has behind bfloat16's bits."""

ELEMENTS_AT_ONCE = 1 << 25
"""Weights that are float32 at one time: 128 MiB, and as much for their gradients and the noise.
How many there are changes no bit: the draws follow the order of the weights."""


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return float32 values as bfloat16, each one of its two neighbours, right on average.

    A value that bfloat16 holds exactly stays, and what is no number stays none.
    """
    assert values.dtype == torch.float32
    noise = torch.randint(
        0,
        1 << _LOW_BITS,
        values.shape,
        generator=generator,
        device=values.device,
        dtype=torch.int32,
    )
    # A GPU's NaN has all bits set: adding anything would make it a zero.
    noise.masked_fill_(~torch.isfinite(values), 0)
    bits = noise.add_(values.contiguous().view(torch.int32))
    return bits.bitwise_and_(-(1 << _LOW_BITS)).view(torch.float32).to(torch.bfloat16)


class StochasticRounding:
    """Steps an optimizer over bfloat16 weights as if they were float32.

    The optimizer knows float32 stand-ins, which hold values only while it steps; so its own state
    is float32, and the real weights are never touched by it. Each step draws from a generator
    named by the seed and the step's number: a resumed run draws what it would have drawn.
    """

    def __init__(self, parameters: Sequence[Parameter], *, seed: int) -> None:
        self._seed = seed
        self.num_steps = 0
        """Done so far; a state has to keep it."""
        self._pairs = [(one, _stand_in(one)) for one in parameters]
        self._real_by_stand_in = {id(stand_in): real for real, stand_in in self._pairs}

    def groups(self, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return parameter groups with the stand-ins in the place of the weights."""
        by_id = {id(real): stand_in for real, stand_in in self._pairs}
        return [{**group, "params": [by_id[id(p)] for p in group["params"]]} for group in groups]

    def real_of(self, stand_in: Tensor) -> Tensor:
        """Return the weight that a stand-in stands for."""
        return self._real_by_stand_in[id(stand_in)]

    @torch.no_grad()
    def step(self, optimizer: Any, *, one_by_one: bool) -> None:
        """Do one optimizer step and use up the gradients.

        `one_by_one` tells that the optimizer treats each weight without regard to the others; then
        they become float32 a part at a time.
        """
        generators: dict[torch.device, torch.Generator] = {}
        for part in self._parts(one_by_one):
            for real, stand_in in part:
                if real.grad is not None:
                    stand_in.data = real.detach().float()
                    stand_in.grad = real.grad.float()
                    real.grad = None
            optimizer.step()
            for real, stand_in in part:
                if stand_in.grad is not None:
                    generator = self._generator(real.device, generators)
                    real.copy_(round_stochastically(stand_in.data, generator))
                stand_in.grad = None
                stand_in.data = _nothing(real)
        self.num_steps += 1

    @contextmanager
    def live(self) -> Iterator[None]:
        """Let the stand-ins hold all weights; what becomes of them is rounded to the nearest."""
        with torch.no_grad():
            for real, stand_in in self._pairs:
                stand_in.data = real.detach().float()
            yield
            for real, stand_in in self._pairs:
                real.copy_(stand_in)
                stand_in.data = _nothing(real)

    def _parts(self, one_by_one: bool) -> Iterator[list[tuple[Parameter, Parameter]]]:
        part: list[tuple[Parameter, Parameter]] = []
        size = 0
        for real, stand_in in self._pairs:
            if part and one_by_one and size + real.numel() > ELEMENTS_AT_ONCE:
                yield part
                part, size = [], 0
            part.append((real, stand_in))
            size += real.numel()
        if part:
            yield part

    def _generator(
        self, device: torch.device, made: dict[torch.device, torch.Generator]
    ) -> torch.Generator:
        if device not in made:
            made[device] = torch.Generator(device)
            made[device].manual_seed(seed64(self._seed, "rounding", self.num_steps))
        return made[device]


def _stand_in(real: Parameter) -> Parameter:
    # Not the weight itself with other data for a while: torch would forget the hooks by which
    # several processes exchange its gradient.
    return Parameter(_nothing(real))


def _nothing(real: Parameter) -> Tensor:
    return torch.empty(0, dtype=torch.float32, device=real.device)
