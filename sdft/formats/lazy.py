"""Tensors that are described now and read later, piece by piece.

A LazyTensor can be renamed, given another shape, cut along its first axis and joined with other
ones without a byte being read. So a whole model is mapped from one layout to another first, and
then copied in small blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

from sdft.errors import DataError
from sdft.formats.tensor_info import DTYPE_BYTES

BLOCK_BYTES = 8 * 2**20
"""Read at once when a tensor is copied; larger blocks are not faster."""


class ElementSource(Protocol):
    """Something that can read a range of one tensor's elements."""

    def read_into(self, name: str, first_byte: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from `first_byte` on, in row-major order."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A source of tensors that hold one value everywhere."""

    element: bytes

    def read_into(self, name: str, first_byte: int, buffer: memoryview) -> None:
        """Fill `buffer`, which has whole elements."""
        buffer[:] = self.element * (len(buffer) // len(self.element))


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of one source tensor's elements in row-major order, in bytes."""

    source: ElementSource
    name: str
    first_byte: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class LazyTensor:
    dtype: str
    """A key of DTYPE_BYTES."""
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    """Put one after the other they are the tensor's bytes."""

    @classmethod
    def of(cls, source: ElementSource, name: str, dtype: str, shape: Sequence[int]) -> LazyTensor:
        num_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
        return cls(dtype, tuple(shape), (Piece(source, name, 0, num_bytes),))

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * DTYPE_BYTES[self.dtype]

    def reshaped(self, shape: Sequence[int]) -> LazyTensor:
        assert math.prod(shape) == self.num_elements, (shape, self.shape)
        return LazyTensor(self.dtype, tuple(shape), self.pieces)

    def rows(self, first: int, last: int) -> LazyTensor:
        """Return the rows from `first` up to, without, `last`."""
        assert 0 <= first <= last <= self.shape[0]
        row_bytes = math.prod(self.shape[1:]) * DTYPE_BYTES[self.dtype]
        pieces = _cut(self.pieces, first * row_bytes, last * row_bytes)
        return LazyTensor(self.dtype, (last - first, *self.shape[1:]), pieces)

    def read_into(self, buffer: memoryview) -> None:
        """Fill `buffer`, which has exactly the tensor's bytes."""
        assert len(buffer) == self.num_bytes
        position = 0
        for piece in self.pieces:
            part = buffer[position : position + piece.num_bytes]
            piece.source.read_into(piece.name, piece.first_byte, part)
            position += piece.num_bytes

    def blocks(self, buffers: Iterator[memoryview]) -> Iterator[memoryview]:
        """Yield the tensor's bytes in order, each time in the front part of the next buffer."""
        for piece in self.pieces:
            start = 0
            while start < piece.num_bytes:
                buffer = next(buffers)
                part = buffer[: min(len(buffer), piece.num_bytes - start)]
                piece.source.read_into(piece.name, piece.first_byte + start, part)
                yield part
                start += len(part)


def block_buffers(count: int) -> Iterator[memoryview]:
    """Return `count` buffers of a block, over and over in turn."""
    return cycle([memoryview(bytearray(BLOCK_BYTES)) for _ in range(count)])


def one_ahead(blocks: Iterator[memoryview]) -> Iterator[memoryview]:
    """Yield the same blocks; while one is used, the next one is made in another thread.

    A block may be used until the one after the next is asked for, if there are three buffers.
    """
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = worker.submit(next, blocks, None)
            yield block


def joined(tensors: Sequence[LazyTensor]) -> LazyTensor:
    """Return tensors one after the other along their first axis.

    Raises: DataError where they do not fit together.
    """
    first = tensors[0]
    if any(t.dtype != first.dtype or t.shape[1:] != first.shape[1:] for t in tensors):
        raise DataError(what="parts of one tensor differ in dtype or shape")
    num_rows = sum(tensor.shape[0] for tensor in tensors)
    pieces = tuple(piece for tensor in tensors for piece in tensor.pieces)
    return LazyTensor(first.dtype, (num_rows, *first.shape[1:]), pieces)


def _cut(pieces: Sequence[Piece], first: int, last: int) -> tuple[Piece, ...]:
    cut = []
    start = 0
    for piece in pieces:
        begin = max(first - start, 0)
        end = min(last - start, piece.num_bytes)
        if begin < end:
            cut.append(Piece(piece.source, piece.name, piece.first_byte + begin, end - begin))
        start += piece.num_bytes
    return tuple(cut)
