"""A cache pass whose work several processes share.

In: what is missing, how many take part. Out: each one's share, the shards that it wrote. One
process holds the store's lock and its list; the others only add files to the folder of shards,
which the next writer takes in should they die before they could tell of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from sdft.cache.shard import (
    SAFETENSORS_OF,
    Entry,
    StoredDtype,
    encode_values,
    write_shard,
)
from sdft.dataset.records import Placement
from sdft.dataset.tables import PlacementTable

Value = TypeVar("Value")


class Crew(Protocol):
    """The processes that share a pass. All of them call each method, but for `count`."""

    @property
    def rank(self) -> int:
        """0 in the process that holds the store."""

    @property
    def size(self) -> int: ...
    def from_main(self, make: Callable[[], Value]) -> Value:
        """Let rank 0 make a value; return it in all."""

    def to_main(self, value: Value) -> list[Value]:
        """Return each one's value, by rank, in rank 0."""

    def count(self, name: str, number: int) -> int:
        """Add to a number that all share and return it."""


class OnlyOne:
    """A crew of one."""

    rank = 0
    size = 1

    def from_main(self, make: Callable[[], Value]) -> Value:
        return make()

    def to_main(self, value: Value) -> list[Value]:
        return [value]

    def count(self, name: str, number: int) -> int:
        return 0


ONLY_ONE = OnlyOne()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenShard:
    """A whole shard that stands in no list yet."""

    name: str
    size_bytes: int
    mtime_ns: int
    entries: tuple[Entry, ...]


@dataclass(kw_only=True)
class ShardWriter:
    """Writes shards into a store's folder without its lock and its list."""

    folder: Path
    """Of the shards."""
    new_name: Callable[[], str]
    shard_bytes: int
    flush_after_s: float
    send: Callable[[Path], None] | None = None
    """Brings a whole shard to where its readers find it; without, it is told of in `written`."""
    written: list[WrittenShard] = field(default_factory=list)
    _arrays: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    _num_bytes: int = 0
    _oldest_s: float = 0.0

    def add(self, key: str, values: np.ndarray, dtype: StoredDtype) -> None:
        """Take in one tensor of float values; it is on the disk after the next flush."""
        if not self._arrays:
            self._oldest_s = time.monotonic()
        stored = encode_values(values, dtype)
        self._arrays[key] = (SAFETENSORS_OF[dtype], stored)
        self._num_bytes += stored.nbytes
        waited_s = time.monotonic() - self._oldest_s
        if self._num_bytes >= self.shard_bytes or waited_s >= self.flush_after_s:
            self.flush()

    def flush(self) -> None:
        """Write what was added as one shard."""
        arrays, self._arrays, self._num_bytes = self._arrays, {}, 0
        if not arrays:
            return
        path = self.folder / self.new_name()
        entries = write_shard(path, arrays)
        if self.send is not None:
            self.send(path)
            return
        status = path.stat()
        self.written.append(
            WrittenShard(
                name=path.name,
                size_bytes=status.st_size,
                mtime_ns=status.st_mtime_ns,
                entries=entries,
            )
        )


def shares(
    jobs: Sequence[int], placements: Sequence[Placement], num_shares: int
) -> list[list[int]]:
    """Cut jobs, numbers of placements in order, into shares of about the same number of pixels.

    Files of one bucket and size may be the same picture twice: they stay together, so that no two
    processes encode it.
    """
    if num_shares == 1 or not jobs:
        return [list(jobs), *([] for _ in range(num_shares - 1))]
    table = PlacementTable.of(placements)
    numbers_J = np.asarray(jobs, dtype=np.int64)
    buckets_J2 = table.buckets_N2[numbers_J]
    file_bytes_J = table.items.file_bytes_N[table.numbers_N[numbers_J]]
    together: dict[tuple[int, ...], list[int]] = {}
    for job, bucket, size in zip(jobs, buckets_J2.tolist(), file_bytes_J.tolist(), strict=True):
        together.setdefault((*bucket, size), []).append(job)
    pixels = [key[0] * key[1] * len(members) for key, members in together.items()]
    total = sum(pixels)
    cut: list[list[int]] = [[] for _ in range(num_shares)]
    done = 0
    for members, count in zip(together.values(), pixels, strict=True):
        # By the middle of the group, so that the first and the last share are no smaller.
        cut[min(num_shares - 1, (2 * done + count) * num_shares // (2 * total))] += members
        done += count
    return cut
