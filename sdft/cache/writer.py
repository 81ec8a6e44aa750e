"""Puts tensors into a store.

In: encoded arrays by key. Out: finished shards and their rows in the manifest. Killed at any
instant, the store keeps every finished shard; the next writer takes in or removes what was left.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from sdft.cache.database import is_broken, is_on_network, named_sqlite_errors, near
from sdft.cache.lock import StoreLock, unwritable
from sdft.cache.manifest import (
    add_shard,
    confirm_shard,
    drop_shards,
    open_for_writing,
)
from sdft.cache.shard import (
    SAFETENSORS_OF,
    DamagedShard,
    Entry,
    StoredDtype,
    encode_values,
    read_shard,
    write_shard,
)
from sdft.cache.sharing import WrittenShard
from sdft.cache.store import TensorStore
from sdft.events import Emit, Notice, ignore
from sdft.files import PART_MARK, remove

SHARD_BYTES = 64 * 2**20
"""2,048 latents of 512 px in half precision: few files, and little to lose."""

FLUSH_AFTER_S = 60.0
"""A slow encoder's work is not held back for longer than this."""

IN_WORK_FOR_S = 3600.0
"""On a network share, where nothing shuts other machines out; a shard is written in seconds."""

TOPIC = "cache"

SUFFIX = ".safetensors"


class StoreWriter:
    """The one writer of a store. A context manager; entering settles what was left behind.

    Raises on entry: UserError where another process writes the store.
    """

    def __init__(
        self,
        store: TensorStore,
        *,
        emit: Emit = ignore,
        shard_bytes: int = SHARD_BYTES,
        flush_after_s: float = FLUSH_AFTER_S,
    ) -> None:
        self._store = store
        self._emit = emit
        self._shard_bytes = shard_bytes
        self._flush_after_s = flush_after_s
        self._lock = StoreLock(store.folder)
        self._arrays: dict[str, tuple[str, np.ndarray]] = {}
        self._num_bytes = 0
        self._oldest_s = 0.0
        self._flushing: Future[None] | None = None

    def __enter__(self) -> StoreWriter:
        try:
            self._store.shards_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self._store.folder, error) from error
        with contextlib.ExitStack() as opened:
            opened.callback(self._store.refresh)
            self._lock.acquire()
            opened.callback(self._lock.release)
            self._open(opened)
            # Hashing and flushing to the disk go on beside the encoder.
            self._pool = opened.enter_context(ThreadPoolExecutor(1, thread_name_prefix="shard"))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After an error as well: what is finished is worth keeping.
        with self._opened:
            self.finish()

    def add(self, key: str, values: np.ndarray, dtype: StoredDtype) -> None:
        """Take in one tensor of float values; it is on the disk after the next flush.

        Raises: EnvironmentFault where an earlier shard could not be written.
        """
        self.add_encoded(key, SAFETENSORS_OF[dtype], encode_values(values, dtype))

    def add_encoded(self, key: str, dtype: str, stored: np.ndarray) -> None:
        """Take in one tensor as `encode_values` gives it, with its safetensors dtype.

        The array is kept until its shard is written and must not change meanwhile.
        """
        if not self._arrays:
            self._oldest_s = time.monotonic()
        self._arrays[key] = (dtype, stored)
        self._num_bytes += stored.nbytes
        waited_s = time.monotonic() - self._oldest_s
        if self._num_bytes >= self._shard_bytes or waited_s >= self._flush_after_s:
            self.flush()

    def flush(self) -> None:
        """Begin to write what was added as one shard; returns when the one before it is whole."""
        self._wait()
        if self._arrays:
            arrays, self._arrays, self._num_bytes = self._arrays, {}, 0
            self._flushing = self._pool.submit(self._write, arrays)

    def finish(self) -> None:
        """Return when everything that was added is on the disk."""
        self.flush()
        self._wait()

    def take_in(self, shards: Sequence[WrittenShard]) -> None:
        """Put whole shards that another process wrote for this store into its list."""
        self._wait()
        for shard in shards:
            with named_sqlite_errors(self._store.manifest_path):
                add_shard(
                    self._manifest,
                    name=shard.name,
                    size_bytes=shard.size_bytes,
                    mtime_ns=shard.mtime_ns,
                    entries=shard.entries,
                    replace=True,
                )

    def drop(self, shard_ids: Sequence[int]) -> None:
        """Take shards, and what the manifest still has in them, out of the store."""
        names = [self._store.snapshot().shards[shard_id].name for shard_id in shard_ids]
        drop_shards(self._manifest, shard_ids)
        # Let go of the maps: Windows removes no mapped file.
        self._store.refresh()
        for name in names:
            self._remove(self._store.shards_folder / name)

    def _open(self, opened: contextlib.ExitStack) -> None:
        """Open the list of what the store holds and settle what was left behind."""
        local = opened.enter_context(near(self._store.manifest_path, put_back=True))
        self._manifest = opened.enter_context(contextlib.closing(self._open_manifest(local)))
        self._settle()

    def _wait(self) -> None:
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            flushing.result()

    def _write(self, arrays: dict[str, tuple[str, np.ndarray]]) -> None:
        path = self._store.shards_folder / new_shard_name()
        self._list(path, write_shard(path, arrays))

    def _list(self, path: Path, entries: Sequence[Entry]) -> None:
        """Hear of a whole shard and put it where the store's readers find it."""
        status = path.stat()
        with named_sqlite_errors(self._store.manifest_path):
            add_shard(
                self._manifest,
                name=path.name,
                size_bytes=status.st_size,
                mtime_ns=status.st_mtime_ns,
                entries=entries,
                replace=True,
            )

    def _open_manifest(self, path: Path) -> sqlite3.Connection:
        if is_broken(path):
            named = self._store.manifest_path
            self._warn(f"{named} cannot be read; it is made again from the shards")
            for name in (path.name, path.name + "-journal"):
                remove(path.with_name(name))
        return open_for_writing(path)

    def _settle(self) -> None:
        """Bring manifest and shards into agreement."""
        self._store.refresh()
        for damage in self._store.damaged.values():
            self._warn(str(damage))
        drop_shards(self._manifest, list(self._store.damaged))
        for shard_id, mtime_ns in self._store.unconfirmed.items():
            confirm_shard(self._manifest, shard_id, mtime_ns)
        known = {shard.name for shard in self._store.snapshot().shards.values()}
        # Let go of the maps: Windows removes no mapped file.
        self._store.refresh()
        for path in shard_files(self._store.shards_folder):
            if path.name not in known and not self._taken_in(path):
                self._remove(path)
        self._store.refresh()

    def _taken_in(self, path: Path) -> bool:
        """Put a whole shard whose writer was killed before its row into the manifest.

        False says that the file is of no use.
        """
        if PART_MARK in path.name:
            return self._may_be_in_work(path)
        try:
            entries = read_shard(path)
        except DamagedShard:
            return False
        status = path.stat()
        num_new = add_shard(
            self._manifest,
            name=path.name,
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            entries=entries,
        )
        self._warn(f"{path} was in no list; {num_new} of its {len(entries)} entries are new")
        return True

    def _may_be_in_work(self, path: Path) -> bool:
        """Tell whether another machine could be writing a file just now."""
        if not is_on_network(self._store.folder):
            return False
        return time.time() - path.stat().st_mtime < IN_WORK_FOR_S

    def _remove(self, path: Path) -> None:
        try:
            remove(path)
        except OSError as error:
            # Mapped by a reader on Windows; the next writer comes by again.
            self._warn(f"{path} is of no use and could not be removed ({error})")

    def _warn(self, message: str) -> None:
        self._emit(Notice(severity="warning", topic=TOPIC, message=message))


def shard_files(folder: Path) -> list[Path]:
    """Return the finished and unfinished shards of a folder, and nobody else's files."""
    with os.scandir(folder) as files:
        return sorted(Path(file.path) for file in files if SUFFIX in file.name and file.is_file())


def new_shard_name() -> str:
    """Return a name that no shard ever had: a reader may still map one that was removed."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}{SUFFIX}"
