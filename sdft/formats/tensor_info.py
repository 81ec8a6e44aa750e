"""Where a tensor lies in a file, and of what kind it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
"""Bytes of one element, by the names that safetensors uses."""

FLOAT_DTYPES = frozenset({"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    dtype: str
    """A key of DTYPE_BYTES."""
    shape: tuple[int, ...]
    offset: int
    """Of the first element, in bytes from the start of the file."""
    num_bytes: int
    """Of all elements."""
    strides: tuple[int, ...] | None = None
    """Steps in elements along each axis; None where the elements lie in row-major order."""

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def span_bytes(self) -> int:
        """Bytes of the file from the first element to the last."""
        if self.strides is None or not self.num_elements:
            return self.num_bytes
        steps = zip(self.shape, self.strides, strict=True)
        last = sum((length - 1) * stride for length, stride in steps)
        return (last + 1) * DTYPE_BYTES[self.dtype]
