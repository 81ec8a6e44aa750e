"""Writes a .ckpt or .bin: the archive of torch.save with nothing but plain tensors in it.

Tensors are copied in blocks, so that a file larger than the memory can be written. Every torch
since 1.6 loads it, with `weights_only=True` and mapped too.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Union

from sdft.errors import DataError
from sdft.formats.lazy import LazyTensor, block_buffers, one_ahead
from sdft.formats.zip_pickle import Scalar

_STORAGES = {
    "BF16": "BFloat16Storage",
    "BOOL": "BoolStorage",
    "U8": "ByteStorage",
    "I8": "CharStorage",
    "F64": "DoubleStorage",
    "F32": "FloatStorage",
    "F16": "HalfStorage",
    "I32": "IntStorage",
    "I64": "LongStorage",
    "I16": "ShortStorage",
}
_ALIGNMENT = 64
"""Bytes; torch maps tensors from the file where they begin at a multiple of it."""
_ROOT = "archive"
_LOCAL_HEADER_BYTES = 30
_EXTRA_HEAD = struct.Struct("<2sH")
_PADDING_MARK = b"FB"
"""The extra field by which torch itself fills up to the alignment."""

Picklable = Union[
    LazyTensor, Scalar, "Mapping[Any, Picklable]", "list[Picklable]", "tuple[Picklable, ...]"
]
"""What such a file can hold; the keys of a table are texts or whole numbers."""


def write_pickled_weights(
    file: IO[bytes],
    tensors: Mapping[str, LazyTensor],
    *,
    scalars: Mapping[str, Scalar] | None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Write tensors as torch.save would.

    With `scalars` the file holds {"state_dict": {...}, **scalars}, as original checkpoints do;
    with None the table of tensors alone, as diffusers' .bin files do. `on_bytes` is told the
    number of bytes of each block.
    Raises: DataError for a dtype that torch's pickles have no plain storage for.
    """
    value = dict(tensors) if scalars is None else {"state_dict": dict(tensors), **scalars}
    write_pickled_value(file, value, on_bytes=on_bytes)


def write_pickled_value(
    file: IO[bytes], value: Picklable, *, on_bytes: Callable[[int], None] = lambda _: None
) -> None:
    """Write tables, lists and tuples of tensors and scalars as torch.save would.

    Raises: DataError for a dtype that torch's pickles have no plain storage for.
    """
    described = _Description()
    pickled = described.value(value)
    buffers = block_buffers(2)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _entry(archive, "data.pkl", [b"\x80\x02" + pickled + b"."])
        _entry(archive, "byteorder", [b"little"])
        for key, tensor in enumerate(described.tensors):
            info = _aligned_info(archive, f"data/{key}", tensor.num_bytes)
            with archive.open(info, "w") as entry:
                for block in one_ahead(tensor.blocks(buffers)):
                    entry.write(block)
                    on_bytes(len(block))
        _entry(archive, "version", [b"3\n"])


class _Description:
    """Makes the pickle's instructions. It needs no table of references, so none is kept."""

    def __init__(self) -> None:
        self.tensors: list[LazyTensor] = []
        """In the order of their keys."""

    def value(self, value: Picklable) -> bytes:
        if isinstance(value, LazyTensor):
            return self.tensor(value)
        if isinstance(value, Mapping):
            return self.table({key: self.value(one) for key, one in value.items()})
        if isinstance(value, list):
            return b"](" + b"".join(map(self.value, value)) + b"e"
        if isinstance(value, tuple):
            return self._sequence([self.value(one) for one in value])
        return self.scalar(value)

    def tensor(self, tensor: LazyTensor) -> bytes:
        if tensor.dtype not in _STORAGES:
            raise DataError(
                what=f"a .ckpt cannot hold {tensor.dtype} tensors",
                fix="write a .safetensors file, or choose a precision",
            )
        key = str(len(self.tensors))
        self.tensors.append(tensor)
        storage = self._sequence(
            [
                self.scalar("storage"),
                self._name("torch", _STORAGES[tensor.dtype]),
                self.scalar(key),
                self.scalar("cpu"),
                self.scalar(tensor.num_elements),
            ]
        )
        arguments = [
            storage + b"Q",
            self.scalar(0),
            self._sequence([self.scalar(length) for length in tensor.shape]),
            self._sequence([self.scalar(stride) for stride in _row_major(tensor.shape)]),
            self.scalar(False),
            self._name("collections", "OrderedDict") + b")R",
        ]
        return self._name("torch._utils", "_rebuild_tensor_v2") + self._sequence(arguments) + b"R"

    def table(self, items: Mapping[str | int, bytes]) -> bytes:
        entries = b"".join(self.scalar(key) + value for key, value in items.items())
        return b"}(" + entries + b"u"

    def scalar(self, value: Scalar) -> bytes:
        if value is None:
            return b"N"
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            encoded = value.encode("utf-8", "surrogatepass")
            return b"X" + struct.pack("<I", len(encoded)) + encoded
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        num_bytes = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([num_bytes]) + value.to_bytes(num_bytes, "little", signed=True)

    @staticmethod
    def _sequence(items: Sequence[bytes]) -> bytes:
        return b"(" + b"".join(items) + b"t"

    @staticmethod
    def _name(module: str, name: str) -> bytes:
        return f"c{module}\n{name}\n".encode()


def _row_major(shape: Sequence[int]) -> list[int]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(1, shape[axis + 1])
    return strides


def _entry(archive: zipfile.ZipFile, name: str, blocks: Sequence[bytes]) -> None:
    info = _aligned_info(archive, name, sum(map(len, blocks)))
    with archive.open(info, "w") as entry:
        for block in blocks:
            entry.write(block)


def _aligned_info(archive: zipfile.ZipFile, name: str, num_bytes: int) -> zipfile.ZipInfo:
    """Describe an entry whose bytes begin at a multiple of the alignment.

    It has no date, so that the same tensors give the same file.
    """
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")
    info.file_size = num_bytes
    # zipfile adds 20 bytes with the long sizes where they do not fit into 32 bits; it decides
    # with a reserve of 5 per cent.
    long_sizes_bytes = 20 if num_bytes * 1.05 > zipfile.ZIP64_LIMIT else 0
    assert archive.fp is not None
    start = archive.fp.tell() + _LOCAL_HEADER_BYTES + len(info.filename) + long_sizes_bytes
    padding = -(start + _EXTRA_HEAD.size) % _ALIGNMENT
    info.extra = _EXTRA_HEAD.pack(_PADDING_MARK, padding) + b"Z" * padding
    return info
