"""The optimizer's step in the backward pass: weights are stepped as soon as their gradients are
whole, so that the gradients of all weights never exist at once.

In: a ChunkedOptimizer. Out: hooks on its weights. Clipping bounds the gradient of each weight on
its own, since the norm of the whole one is known too late.

Source: Lv et al. 2023 (arXiv 2306.09782), "Full Parameter Fine-tuning with Limited Resources".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from sdft.train.chunks import Chunk, ChunkedOptimizer


class FusedBackward:
    """Steps each chunk when the last of its gradients has arrived."""

    def __init__(self, optimizer: ChunkedOptimizer, *, max_grad_norm: float) -> None:
        self.optimizer = optimizer
        self._max_grad_norm = max_grad_norm
        for chunk in optimizer.chunks:
            for weight in chunk.weights:
                register: Any = weight.register_post_accumulate_grad_hook
                register(self._hook(chunk))

    def finish(self) -> Tensor | None:
        """End a step; return the norm of the whole gradient before clipping, None without any.

        It is known without any clipping too: a gradient that is no number has to be seen, and the
        gradients are gone. Does not wait for the device.
        """
        late = [chunk for chunk in self.optimizer.chunks if chunk.num_ready]
        assert not late, "some weights of a chunk got no gradient"
        self.optimizer.finish()
        squares = [one for chunk in self.optimizer.chunks for one in chunk.squared_norms]
        for chunk in self.optimizer.chunks:
            chunk.squared_norms = []
        return torch.stack(squares).sum().sqrt() if squares else None

    def _hook(self, chunk: Chunk) -> Callable[[Parameter], None]:
        def gradient_is_whole(weight: Parameter) -> None:
            chunk.num_ready += 1
            if chunk.num_ready == len(chunk.weights):
                chunk.num_ready = 0
                self.optimizer.step_chunk(chunk, max_norm=self._max_grad_norm)

        return gradient_is_whole
