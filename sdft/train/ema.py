"""A moving average of the trained weights.

In: the live weights after each update. Out: averaged weights, to save and to draw with.
Kept in float32 whatever the weights are in: at a decay of 0.9999 a bfloat16 average would stand
still. On the CPU it costs no memory of the device and one copy of the weights an update.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter

from sdft.models.sharding import joined, local_part, spread_like

_NUM_UPDATES = "num_updates"


class MovingAverage:
    """Follows named weights; the same updates always give the same bits."""

    def __init__(
        self, weights: Mapping[str, Parameter], *, decay: float, device: torch.device
    ) -> None:
        self._weights = dict(weights)
        self._decay = decay
        self._num_updates = 0
        self._averages = {
            name: local_part(weight.detach()).to(device, torch.float32, copy=True)
            for name, weight in self._weights.items()
        }

    def decay_now(self) -> float:
        """Return how much of the old average the next update keeps.

        It grows from 0, so that the random start does not weigh on a short run.
        Source: diffusers' EMAModel, min(decay, (1 + n) / (10 + n)).
        """
        done = self._num_updates
        return 0.0 if done == 0 else min(self._decay, (1 + done) / (10 + done))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        share = 1.0 - self.decay_now()
        self._num_updates += 1
        for name, weight in self._weights.items():
            average = self._averages[name]
            average.lerp_(local_part(weight).to(average.device, torch.float32), share)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Put the averages in the place of the weights for the length of the block."""
        with kept_aside(self._weights.values()), torch.no_grad():
            for name, weight in self._weights.items():
                local_part(weight).copy_(self._averages[name])
            yield

    def tensors(self) -> dict[str, Tensor]:
        """Return what a state has to hold."""
        averages = {
            name: joined(average, self._weights[name]) for name, average in self._averages.items()
        }
        return averages | {_NUM_UPDATES: torch.tensor(self._num_updates)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave; every weight has to be there."""
        self._num_updates = int(tensors[_NUM_UPDATES].item())
        assert tensors.keys() == {*self._averages, _NUM_UPDATES}, "the state of other weights"
        for name, average in self._averages.items():
            average.copy_(local_part(spread_like(self._weights[name], tensors[name])))


@contextmanager
def kept_aside(weights: Iterable[Parameter]) -> Iterator[None]:
    """Bring weights back to their very bits at the end of the block. Copies lie on the CPU."""
    own = [local_part(weight.detach()) for weight in weights]
    held = [(weight, weight.to("cpu", copy=True)) for weight in own]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, copy in held:
                weight.copy_(copy)
