"""Keeps what checkpointed blocks begin with in main memory until the backward pass wants it.

In: a block's call. Out: the same call, whose inputs are copied away on a stream of their own while
the device works on, and come back one block ahead of their use. The bits are the same.

Source: the idea is that of Rajbhandari et al. 2021 (arXiv 2104.07857), "ZeRO-Infinity": activation
checkpoints in the memory of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LEAST_BYTES = 1 << 20
"""Smaller tensors, such as the time's embedding, are not worth a copy."""


@dataclass(eq=False, slots=True)
class _Away:
    """A tensor whose values are in main memory."""

    host: Tensor
    device: torch.device
    call: list[_Away]
    """All that the same call of a block sent away."""
    fetched: Tensor | None = None
    """On its way back, or there."""


class Offload:
    """Calls blocks by checkpoints whose inputs are kept away from the device.

    Backward passes take blocks in the opposite order of the forward pass, so that each time one is
    fetched the one before it is asked for too.
    """

    def __init__(self, *, least_bytes: int = LEAST_BYTES) -> None:
        self._least_bytes = least_bytes
        self._calls: list[list[_Away]] = []
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, block: Callable[..., Any], *inputs: Any) -> Any:
        """Return what the block gives; its inputs are kept for computing it again."""
        kept = {id(one) for one in inputs if self._is_worth_it(one)}
        call: list[_Away] = []
        if kept:
            self._calls.append(call)

        def pack(tensor: Tensor) -> Tensor | _Away:
            # Outside of the block nothing is saved but its inputs; weights never are.
            return self._send(tensor, call) if id(tensor) in kept else tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, self._unpack):
            return checkpoint(block, *inputs, use_reentrant=False)

    def _is_worth_it(self, value: object) -> bool:
        # What needs no gradient, as contexts, is the same for all blocks and held once.
        return (
            isinstance(value, Tensor)
            and value.requires_grad
            and value.numel() * value.element_size() >= self._least_bytes
        )

    def _send(self, tensor: Tensor, call: list[_Away]) -> _Away:
        values = tensor.detach()
        if values.device.type != "cuda":
            one = _Away(host=values.clone(), device=values.device, call=call)
        else:
            host = torch.empty_like(values, device="cpu", pin_memory=True)
            stream = self._side(values.device)
            stream.wait_stream(torch.cuda.current_stream(values.device))
            with torch.cuda.stream(stream):
                host.copy_(values, non_blocking=True)
            # Its memory may serve others only when the copy is done.
            values.record_stream(stream)
            one = _Away(host=host, device=values.device, call=call)
        call.append(one)
        return one

    def _unpack(self, kept: Tensor | _Away) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        self._fetch(kept)
        if self._calls and self._calls[-1] is kept.call:
            before = self._calls[-2] if len(self._calls) > 1 else []
            for one in (*self._calls.pop(), *before):
                self._fetch(one)
        values, kept.fetched = kept.fetched, None
        assert values is not None
        if kept.device.type == "cuda":
            current = torch.cuda.current_stream(kept.device)
            current.wait_stream(self._side(kept.device))
            values.record_stream(current)
        return values

    def _fetch(self, one: _Away) -> None:
        """Begin to bring a tensor back, if that was not done."""
        if one.fetched is not None:
            return
        if one.device.type != "cuda":
            one.fetched = one.host
            return
        # The same stream took it away, so that is done before.
        with torch.cuda.stream(self._side(one.device)):
            one.fetched = one.host.to(one.device, non_blocking=True)

    def _side(self, device: torch.device) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._stream
