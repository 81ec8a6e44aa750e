"""The gradients of several processes where no module exchanges them in its backward pass.

In: parameters with gradients. Out: the same with the mean over all processes, as DDP gives it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def average_gradients(parameters: Sequence[Tensor], *, num_processes: int) -> None:
    """Replace each gradient by its mean over the processes, in one exchange for each dtype."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for one in parameters:
        if one.grad is not None:
            by_dtype.setdefault(one.grad.dtype, []).append(one.grad)
    for gradients in by_dtype.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= num_processes
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
