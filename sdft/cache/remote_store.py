"""A store of tensors that lies in an object store, and what of it is kept on this machine.

<url>/shards/<name>.safetensors    the very files of a store on a disk; the listing is the list

In: keys. Out: arrays. A listing says which shards there are, their headers what is in them; a
tensor is read by its range when it is needed, and kept by the ObjectCache. Nothing is ever changed
there: an object is whole or absent, so whoever writes at the same time does no harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sdft.cache.manifest import ShardRow, Snapshot
from sdft.cache.shard import SIZE_BYTES, DamagedShard, Entry, entries_of, header_size
from sdft.cache.store import SHARDS_NAME, Buffer, TensorStore
from sdft.dataset.drivers import entries, opened, state_of, with_retries
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.sources import State
from sdft.errors import EnvironmentFault
from sdft.events import Emit, Notice, ignore
from sdft.urls import UrlPath

SUFFIX = ".safetensors"

HEAD_BYTES = 1 << 19
"""Holds the header of a full shard of 64 MB of latents: one request tells all of it."""

HEADERS_AT_ONCE = 8

TOPIC = "cache"


class RemoteStore(TensorStore):
    """Reads a store below a URL."""

    def __init__(self, folder: Path, url: str, cache: ObjectCache, emit: Emit = ignore) -> None:
        """`folder` is where shards are written here before they are sent."""
        super().__init__(folder)
        self.url = url
        self.cache = cache
        self.emit = emit

    def __reduce__(self) -> Any:
        return RemoteStore, (self.folder, self.url, self.cache)

    @property
    def place(self) -> Path:
        return UrlPath(self.url)

    def local_bytes(self, num_bytes: int) -> int:
        return min(num_bytes, self.cache.max_bytes)

    def shard_url(self, name: str) -> str:
        return f"{self.url}/{SHARDS_NAME}/{name}"

    def fetch(self, keys: Sequence[str]) -> None:
        """Read many at once; what fails here is tried again alone when it is needed."""
        snapshot = self.snapshot()
        missing = [
            row
            for row in dict.fromkeys(snapshot.rows_of(keys).tolist())
            if row >= 0 and self._kept(snapshot, row) is None
        ]
        if len(missing) < 2:
            return
        places = [self._range(snapshot, row) for row in missing]
        system, _ = opened(places[0][0])
        names = [system._strip_protocol(url) for url, _, _ in places]
        with contextlib.suppress(OSError):
            found = system.cat_ranges(
                names,
                [start for _, start, _ in places],
                [start + num_bytes for _, start, num_bytes in places],
                on_error="return",
            )
            for row, (_, _, num_bytes), content in zip(missing, places, found, strict=True):
                if isinstance(content, bytes | bytearray) and len(content) == num_bytes:
                    self.cache.put(*self._entry(snapshot, row), bytes(content))

    def send(self, path: Path) -> None:
        """Bring a whole shard into the store; what was sent is kept here as if it had been read.

        Raises: EnvironmentFault; the file then stays where it is.
        """
        url, num_bytes = self.shard_url(path.name), path.stat().st_size
        system, name = opened(url, writes=True)

        def put() -> ShardRow:
            system.put_file(str(path), name)
            # From the listing: it is what readers go by, and not every store says the same of one
            # object alone.
            (row,) = [row for row in self._listed() if row.name == path.name]
            if row.size_bytes != num_bytes:
                raise OSError(f"{row.size_bytes} of {num_bytes} bytes arrived")
            return row

        with self._named():
            row = with_retries(put, url, self._note, done="written")
        self.cache.adopt(url, (row.size_bytes, row.mtime_ns), path)

    def remove(self, name: str) -> None:
        """Take a shard out of the store.

        Raises: EnvironmentFault.
        """
        url = self.shard_url(name)
        system, path = opened(url, writes=True)
        with self._named():
            with_retries(lambda: system.rm_file(path), url, self._note, done="removed")

    def whole(self, shard: ShardRow) -> np.ndarray:
        """Return the bytes of a shard.

        Raises: DamagedShard, EnvironmentFault; FileNotFoundError where it is gone.
        """
        content = self._read(self.shard_url(shard.name), 0, shard.size_bytes)
        return np.frombuffer(content, dtype=np.uint8)

    def listed(self) -> list[ShardRow]:
        """Return the shards there are, by name. One request for each thousand.

        Raises: EnvironmentFault.
        """
        with self._named():
            return self._listed()

    def _load(self) -> Snapshot:
        self._damaged, self._unconfirmed = {}, {}
        shards = self.listed()
        with ThreadPoolExecutor(HEADERS_AT_ONCE, thread_name_prefix="headers") as pool:
            found = list(pool.map(self._entries, shards))
        return Snapshot.of(
            (shard, held) for shard, held in zip(shards, found, strict=True) if held is not None
        )

    def _listed(self) -> list[ShardRow]:
        system, prefix = opened(f"{self.url}/{SHARDS_NAME}")
        try:
            found = with_retries(
                lambda: entries(system, prefix, recursive=True), self.url, self._note
            )
        except FileNotFoundError:
            found = {}
        names = {name.rpartition("/")[2]: facts for name, facts in found.items()}
        rows: list[ShardRow] = []
        for name in sorted(name for name in names if name.endswith(SUFFIX)):
            size_bytes, mark = state_of(self.shard_url(name), names[name])
            row = ShardRow(id=len(rows) + 1, name=name, size_bytes=size_bytes, mtime_ns=mark)
            rows.append(row)
        return rows

    def _entries(self, shard: ShardRow) -> tuple[Entry, ...] | None:
        """Return what a shard holds, or None where it is damaged or gone."""
        url = self.shard_url(shard.name)
        # Its length stands in it, so a header that was cut off here is noticed.
        kept = f"{url}#header", (0, shard.mtime_ns)
        head = self.cache.get(*kept)
        try:
            if head is not None:
                with contextlib.suppress(DamagedShard):
                    return _entries(head, shard, UrlPath(url))
            head = self._read(url, 0, min(HEAD_BYTES, shard.size_bytes))
            header_bytes = header_size(head, UrlPath(url))
            if len(head) < SIZE_BYTES + header_bytes <= shard.size_bytes:
                head += self._read(url, len(head), SIZE_BYTES + header_bytes - len(head))
            found = _entries(head[: SIZE_BYTES + header_bytes], shard, UrlPath(url))
        except FileNotFoundError:
            # Another machine pruned the store between the listing and now.
            return None
        except DamagedShard as damage:
            self._damaged[shard.id] = damage
            self._note(f"{damage.problems[0].what}; it is passed over: {url}")
            return None
        self.cache.put(*kept, head[: SIZE_BYTES + header_bytes])
        return found

    def _buffer(self, snapshot: Snapshot, row: int) -> tuple[Buffer, int]:
        content = self._kept(snapshot, row)
        if content is None:
            content = self._read(*self._range(snapshot, row))
            self.cache.put(*self._entry(snapshot, row), content)
        return content, 0

    def _kept(self, snapshot: Snapshot, row: int) -> bytes | None:
        """Return a tensor's bytes if they are here, alone or in a shard that was written here."""
        url, start, num_bytes = self._range(snapshot, row)
        shard = snapshot.shards[int(snapshot.shard_ids[row])]
        content = self.cache.get(*self._entry(snapshot, row))
        if content is None:
            state = shard.size_bytes, shard.mtime_ns
            content = self.cache.part(url, state, start, num_bytes)
        return content

    def _entry(self, snapshot: Snapshot, row: int) -> tuple[str, State]:
        """Return under which name and state a tensor alone is kept here."""
        url, start, num_bytes = self._range(snapshot, row)
        mark = snapshot.shards[int(snapshot.shard_ids[row])].mtime_ns
        return f"{url}#{start}", (num_bytes, mark)

    def _range(self, snapshot: Snapshot, row: int) -> tuple[str, int, int]:
        """Return where a tensor lies: its shard's URL, begin, bytes."""
        shard = snapshot.shards[int(snapshot.shard_ids[row])]
        return self.shard_url(shard.name), int(snapshot.offsets[row]), snapshot.size_of(row)

    def _read(self, url: str, start: int, num_bytes: int) -> bytes:
        """Raises: FileNotFoundError, EnvironmentFault, DamagedShard."""
        system, name = opened(url)
        with self._named():
            content = with_retries(
                lambda: bytes(system.cat_file(name, start=start, end=start + num_bytes)),
                url,
                self._note,
            )
        if len(content) != num_bytes:
            raise DamagedShard(
                what=f"a cache file is damaged: {len(content)} of {num_bytes} bytes came",
                where=url,
                fix="run cache-latents again: what it held is made anew",
            )
        return content

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise EnvironmentFault(
                what=f"the cache cannot be used: {error.strerror or error}",
                where=self.url,
                fix="check the URL, and the credentials that the store's own tools find",
                key="store_unusable",
            ) from error

    def _note(self, text: str) -> None:
        self.emit(Notice(severity="warning", topic=TOPIC, message=text))


def _entries(head: bytes, shard: ShardRow, path: Path) -> tuple[Entry, ...]:
    end = SIZE_BYTES + header_size(head, path)
    return entries_of(head[SIZE_BYTES:end], shard.size_bytes, path)
