"""Between lazy tensors and torch's.

`open_tensors` reads any file of tensors without running anything in it; `read` gives one tensor;
`MemoryTensors` lets tensors that are in memory be mapped and written like those of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sdft.formats.lazy import LazyTensor
from sdft.formats.tensor_file import TensorFile, open_tensor_file
from sdft.formats.tensor_info import DTYPE_BYTES, FLOAT_DTYPES

__all__ = ["MemoryTensors", "TensorFile", "cast", "open_tensors", "read"]

TORCH_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
}
"""By the names that safetensors uses."""
FP16_MAX = 65504.0
"""The largest number of fp16."""
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}

open_tensors = open_tensor_file


def read(tensor: LazyTensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor in memory of its own; floats become `dtype` where one is given."""
    raw = torch.empty(tensor.num_bytes, dtype=torch.uint8)
    if tensor.num_bytes:
        tensor.read_into(raw.numpy().data)
    stored = raw.view(TORCH_DTYPES[tensor.dtype]).reshape(tensor.shape)
    return stored.to(dtype) if dtype is not None and stored.is_floating_point() else stored


class MemoryTensors:
    """Tensors in memory, on any device, as a source of lazy ones. Copies one at a time."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self._last: tuple[str, Tensor] | None = None

    def all_lazy(self) -> dict[str, LazyTensor]:
        return {
            name: LazyTensor.of(self, name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def read_into(self, name: str, first_byte: int, buffer: memoryview) -> None:
        if self._last is None or self._last[0] != name:
            # A large tensor is asked for in several blocks and fetched from its device once.
            tensor = self._tensors[name].detach().to("cpu").contiguous()
            self._last = (name, tensor.reshape(-1).view(torch.uint8))
        _fill(buffer, self._last[1][first_byte : first_byte + len(buffer)])


class _Cast:
    """One tensor's elements in another dtype, made block by block."""

    def __init__(self, tensor: LazyTensor, dtype: str, on_overflow: Callable[[], None]) -> None:
        self._flat = tensor.reshaped((tensor.num_elements,))
        self._dtype = dtype
        self._on_overflow = on_overflow

    def read_into(self, name: str, first_byte: int, buffer: memoryview) -> None:
        item_bytes = DTYPE_BYTES[self._dtype]
        first, last = first_byte // item_bytes, (first_byte + len(buffer)) // item_bytes
        stored = read(self._flat.rows(first, last))
        cast = stored.to(TORCH_DTYPES[self._dtype])
        if self._dtype == "F16" and _overflows_fp16(stored, cast):
            self._on_overflow()
        _fill(buffer, cast.view(torch.uint8))


def _fill(buffer: memoryview, raw: Tensor) -> None:
    """Copy bytes. Unlike `buffer[:] = ...`, torch lets other threads work meanwhile."""
    if len(buffer):
        torch.frombuffer(buffer, dtype=torch.uint8).copy_(raw)


def _overflows_fp16(stored: Tensor, cast: Tensor) -> bool:
    if not stored.numel():
        return False
    low, high = stored.aminmax()
    # Ten times faster than a look at each element, which only a suspicious block gets. A value
    # that is no number makes both ends none, and the comparison false.
    if bool((low >= -FP16_MAX) & (high <= FP16_MAX)):
        return False
    return bool((cast.isinf() & stored.isfinite()).any())


def cast(
    tensor: LazyTensor, dtype: str, on_overflow: Callable[[], None] = lambda: None
) -> LazyTensor:
    """Return the same numbers in another dtype; what is no float stays as it is.

    `on_overflow` is called while the tensor is read, when a number is too large for `dtype`.
    """
    if tensor.dtype not in FLOAT_DTYPES or tensor.dtype == dtype:
        return tensor
    source = _Cast(tensor, dtype, on_overflow)
    return LazyTensor.of(source, "", dtype, tensor.shape)
