"""Keeps optimizer states in main memory and brings those of one chunk to the device in time.

In: the optimizers of all chunks, in the order in which they usually step. While one steps, the
states of the next are on their way, and those of the last on their way back, on a stream of their
own. On a CPU there is nothing to copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

LEAST_ELEMENTS = 4096
"""Smaller tensors, step counters and tables among them, stay where they are."""

Place = tuple[int, str]
"""Which stand-in of a chunk, and the name of the state."""


class HostStates:
    """The states of chunks, in pinned memory but while their chunk steps."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self._host: list[dict[Place, Tensor]] = [{} for _ in optimizers]
        self._coming: dict[int, dict[Place, Tensor]] = {}
        self._stream: torch.cuda.Stream | None = None

    def bring(self, number: int) -> None:
        """Let a chunk have its states on the device, and begin to bring those of the next."""
        if not self._device_of(number):
            return
        if number not in self._coming:
            self._begin(number)
        stream = self._side()
        torch.cuda.current_stream().wait_stream(stream)
        for place, copy in self._coming.pop(number).items():
            copy.record_stream(torch.cuda.current_stream())
            self._put(number, place, copy)
        if number + 1 < len(self._optimizers) and number + 1 not in self._coming:
            self._begin(number + 1)

    def take_back(self, number: int) -> None:
        """Copy a chunk's states to main memory, once its step is done."""
        if not self._device_of(number):
            return
        stream = self._side()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for place, state in self._large(number):
                host = self._host[number].get(place)
                if host is None:
                    host = torch.empty(state.shape, dtype=state.dtype, pin_memory=True)
                    self._host[number][place] = host
                host.copy_(state, non_blocking=True)
                state.record_stream(stream)
                self._put(number, place, host)

    def take_over(self, number: int) -> None:
        """Move the states of a chunk that were loaded just now to main memory."""
        # What was on its way to the device belongs to the states before.
        self.wait()
        self._coming.pop(number, None)
        self._host[number] = {}
        self.take_back(number)
        self.wait()

    def wait(self) -> None:
        """Return when all copies have arrived."""
        if self._stream is not None:
            self._stream.synchronize()

    def _begin(self, number: int) -> None:
        stream = self._side()
        with torch.cuda.stream(stream):
            device = self._device_of(number)
            self._coming[number] = {
                place: host.to(device, non_blocking=True)
                for place, host in self._host[number].items()
            }

    def _large(self, number: int) -> Iterator[tuple[Place, Tensor]]:
        optimizer = self._optimizers[number]
        for index, stand_in in enumerate(optimizer.param_groups[0]["params"]):
            for name, state in optimizer.state[stand_in].items():
                if isinstance(state, Tensor) and state.numel() >= LEAST_ELEMENTS:
                    yield (index, name), state

    def _put(self, number: int, place: Place, state: Tensor) -> None:
        optimizer = self._optimizers[number]
        index, name = place
        optimizer.state[optimizer.param_groups[0]["params"][index]][name] = state

    def _device_of(self, number: int) -> torch.device | None:
        """Return the device if it is one with a memory of its own."""
        stand_in = self._optimizers[number].param_groups[0]["params"][0]
        return stand_in.device if stand_in.device.type == "cuda" else None

    def _side(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return self._stream
