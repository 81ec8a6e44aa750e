"""Looks for values in weights that are not numbers, block by block."""

from __future__ import annotations

import torch

from sdft.formats.lazy import BLOCK_BYTES, LazyTensor
from sdft.formats.tensor_info import DTYPE_BYTES, FLOAT_DTYPES
from sdft.models.checkpoint import read


def count_not_finite(tensor: LazyTensor) -> tuple[int, int]:
    """Return how many elements are not a number, and how many are infinite."""
    if tensor.dtype not in FLOAT_DTYPES:
        return 0, 0
    flat = tensor.reshaped((tensor.num_elements,))
    step = BLOCK_BYTES // DTYPE_BYTES[tensor.dtype]
    num_nan = num_infinite = 0
    for first in range(0, tensor.num_elements, step):
        block = read(flat.rows(first, min(first + step, tensor.num_elements)))
        if DTYPE_BYTES[tensor.dtype] == 1:
            # The 8-bit floats have no arithmetic of their own.
            block = block.float()
        # One sum tells of both: a block without them has a finite one, and nearly all have none.
        # Where many large numbers overflow the sum, the count below comes out as 0.
        if not bool(torch.isfinite(block.sum(dtype=torch.float32))):
            num_nan += int(block.isnan().sum())
            num_infinite += int(block.isinf().sum())
    return num_nan, num_infinite
