"""A folder of tensors, each under the key of what it was made from.

<folder>/
    manifest.sqlite          which key lies where
    shards/<name>.safetensors  written whole, never changed, never replaced
    writer.lock              held by the one process that writes

In: keys. Out: arrays. No torch. A store is passed to other processes by its path alone and opened
where it is used; reading maps the shards into memory.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from sdft.cache.manifest import ShardRow, Snapshot, read_snapshot
from sdft.cache.shard import NUMPY_OF, DamagedShard, decode_values, map_shard, read_shard
from sdft.errors import DataError

MANIFEST_NAME = "manifest.sqlite"
SHARDS_NAME = "shards"

Buffer: TypeAlias = np.ndarray | bytes


class TensorStore:
    """Reads a store. Threads may share one; another process opens its own.

    What the store held when it was first used is what it holds until `refresh`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._damaged: dict[int, DamagedShard] = {}
        self._unconfirmed: dict[int, int] = {}
        self._maps: dict[int, np.ndarray] = {}

    def __reduce__(self) -> tuple[type[TensorStore], tuple[Path]]:
        return type(self), (self.folder,)

    @property
    def place(self) -> Path:
        """Return what a person is told of where it is."""
        return self.folder

    def local_bytes(self, num_bytes: int) -> int:
        """Return how much of this machine's disk so much in the store takes."""
        return num_bytes

    def fetch(self, keys: Sequence[str]) -> None:
        """Hear which tensors will be read next."""

    @property
    def manifest_path(self) -> Path:
        return self.folder / MANIFEST_NAME

    @property
    def shards_folder(self) -> Path:
        return self.folder / SHARDS_NAME

    @property
    def damaged(self) -> dict[int, DamagedShard]:
        """Shards that are missing, cut off or altered, and how; none of their keys is held."""
        self.snapshot()
        return dict(self._damaged)

    @property
    def unconfirmed(self) -> dict[int, int]:
        """New file times of shards that were found whole, for the next writer to note."""
        self.snapshot()
        return dict(self._unconfirmed)

    def __len__(self) -> int:
        return len(self.snapshot().keys)

    def has(self, keys: Sequence[str]) -> np.ndarray:
        """Return, for each key, whether the store holds it. Shape: [len(keys)] bool."""
        return self.snapshot().rows_of(keys) >= 0

    def holds(self, keys_N16: np.ndarray) -> np.ndarray:
        """Return the same for keys as rows of uint8. Shape: [N] bool."""
        return self.snapshot().rows_of_bytes(keys_N16) >= 0

    def read(self, key: str) -> np.ndarray:
        """Return one tensor as float16 or float32 (bfloat16 comes as float32), a copy.

        Raises: DataError where the key is not held or its shard went bad.
        """
        snapshot = self.snapshot()
        row = snapshot.row_of(key)
        return self._values(snapshot, row, key).copy()

    def read_batch(self, keys: Sequence[str]) -> np.ndarray:
        """Return tensors of one shape and dtype, stacked along a new first axis.

        Raises: DataError where a key is not held, shapes differ, or a shard went bad.
        """
        snapshot = self.snapshot()
        rows = snapshot.rows_of(keys)
        first = self._values(snapshot, int(rows[0]), keys[0])
        batch = np.empty((len(keys), *first.shape), dtype=first.dtype)
        batch[0] = first
        for position in range(1, len(keys)):
            values = self._values(snapshot, int(rows[position]), keys[position])
            if values.shape != first.shape or values.dtype != first.dtype:
                raise DataError(
                    what=f"a batch of {first.dtype} {first.shape} and {values.dtype} "
                    f"{values.shape}",
                    where=str(self.folder),
                    fix="a batch has one resolution and one precision",
                )
            batch[position] = values
        return batch

    def refresh(self) -> None:
        """Look again at what the store holds, and let go of all files."""
        with self._lock:
            self._snapshot = None
            self._maps = {}

    close = refresh

    def snapshot(self) -> Snapshot:
        """Return what the store holds, less its damaged shards."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = self._load()
            return self._snapshot

    def _load(self) -> Snapshot:
        snapshot = read_snapshot(self.manifest_path)
        self._damaged, self._unconfirmed = {}, {}
        for shard in snapshot.shards.values():
            path = self.shards_folder / shard.name
            try:
                status = path.stat()
                if status.st_size != shard.size_bytes:
                    raise DamagedShard(
                        what=f"a cache file is damaged: it has {status.st_size} bytes "
                        f"of {shard.size_bytes}",
                        where=str(path),
                        fix="run cache-latents again: what it held is made anew",
                    )
                if status.st_mtime_ns != shard.mtime_ns:
                    # Copied or altered since its checksum was last known to fit.
                    read_shard(path)
                    self._unconfirmed[shard.id] = status.st_mtime_ns
            except FileNotFoundError:
                self._damaged[shard.id] = DamagedShard(
                    what="a cache file is missing",
                    where=str(path),
                    fix="run cache-latents again: what it held is made anew",
                )
            except DamagedShard as damage:
                self._damaged[shard.id] = damage
        return snapshot.without_shards(frozenset(self._damaged))

    def _values(self, snapshot: Snapshot, row: int, key: str) -> np.ndarray:
        if row < 0:
            raise DataError(
                what=f"the cache does not hold {key}",
                where=str(self.place),
                fix="run cache-latents again",
            )
        form = snapshot.forms[int(snapshot.form_ids[row])]
        try:
            buffer, offset = self._buffer(snapshot, row)
        except FileNotFoundError:
            return self._moved(snapshot, key)
        stored = np.ndarray(form.shape, NUMPY_OF[form.dtype], buffer, offset)
        return decode_values(stored, form.dtype)

    def _buffer(self, snapshot: Snapshot, row: int) -> tuple[Buffer, int]:
        """Return bytes that hold a row's tensor, and where in them it begins.

        Raises: DamagedShard; FileNotFoundError where its shard is gone.
        """
        shard_bytes = self._mapped(snapshot, int(snapshot.shard_ids[row]))
        return shard_bytes, int(snapshot.offsets[row])

    def _moved(self, stale: Snapshot, key: str) -> np.ndarray:
        """Look a key up again: another process pruned the store and copied what it kept."""
        with self._lock:
            if self._snapshot is stale:
                self._snapshot = None
                self._maps = {}
        fresh = self.snapshot()
        return self._values(fresh, fresh.row_of(key), key)

    def whole(self, shard: ShardRow) -> np.ndarray:
        """Return the bytes of a shard.

        Raises: DamagedShard; FileNotFoundError.
        """
        return map_shard(self.shards_folder / shard.name, shard.size_bytes)

    def _mapped(self, snapshot: Snapshot, shard_id: int) -> np.ndarray:
        mapped = self._maps.get(shard_id)
        if mapped is None:
            mapped = self.whole(snapshot.shards[shard_id])
            self._maps[shard_id] = mapped
        return mapped
