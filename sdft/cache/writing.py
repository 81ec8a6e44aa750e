"""What writes into a store, wherever it lies.

In: a store. Out: its one writer, or one that helps a process which holds it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from sdft.cache.remote_store import RemoteStore
from sdft.cache.shard import DamagedShard, Entry, read_shard
from sdft.cache.sharing import ShardWriter, WrittenShard
from sdft.cache.store import TensorStore
from sdft.cache.writer import (
    FLUSH_AFTER_S,
    SHARD_BYTES,
    StoreWriter,
    new_shard_name,
    shard_files,
)
from sdft.events import Emit, ignore
from sdft.files import PART_MARK, make_folder


class RemoteWriter(StoreWriter):
    """Writes shards here and sends each when it is whole. On this machine it is the only one."""

    def __init__(self, store: RemoteStore, *, emit: Emit = ignore) -> None:
        super().__init__(store, emit=emit)
        self._remote = store

    def take_in(self, shards: Sequence[WrittenShard]) -> None:
        """The listing tells of what others sent."""

    def drop(self, shard_ids: Sequence[int]) -> None:
        names = [self._store.snapshot().shards[shard_id].name for shard_id in shard_ids]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._remote.remove(name)
        self._store.refresh()

    def _open(self, opened: contextlib.ExitStack) -> None:
        self._store.refresh()
        for path in shard_files(self._store.shards_folder):
            if PART_MARK not in path.name and _is_whole(path):
                self._warn(f"{path} was not sent by the process that made it; it is sent now")
                self._remote.send(path)
            else:
                self._remove(path)

    def _list(self, path: Path, entries: Sequence[Entry]) -> None:
        self._remote.send(path)


def _is_whole(path: Path) -> bool:
    try:
        read_shard(path)
    except DamagedShard:
        return False
    return True


def writer_of(store: TensorStore, *, emit: Emit = ignore) -> StoreWriter:
    """Return the one writer of a store; a context manager."""
    if isinstance(store, RemoteStore):
        return RemoteWriter(store, emit=emit)
    return StoreWriter(store, emit=emit)


def helping_writer(store: TensorStore) -> ShardWriter:
    """Return what writes shards for a store whose lock another process holds."""
    if isinstance(store, RemoteStore):
        # That process may be on another machine.
        make_folder(store.shards_folder)
    return ShardWriter(
        folder=store.shards_folder,
        new_name=new_shard_name,
        shard_bytes=SHARD_BYTES,
        flush_after_s=FLUSH_AFTER_S,
        send=store.send if isinstance(store, RemoteStore) else None,
    )
