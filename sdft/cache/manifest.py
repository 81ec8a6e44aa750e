"""The list of what a store holds: one SQLite file beside its shards.

In: rows of shards and entries. Out: a Snapshot, which finds a million keys in 30 MB.
One process writes, with a rollback journal; readers load a snapshot and close the file. The
manifest can be made again from the shards.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdft.cache.database import WAIT_FOR_LOCK_S, named_sqlite_errors, near, transaction
from sdft.cache.shard import KEY_BYTES, NUMPY_OF, Entry
from sdft.errors import DataError

SCHEMA_VERSION = 1

ROWS_AT_ONCE = 16_384
"""Rows held as Python objects while a snapshot is loaded: a few MB."""

_SCHEMA = f"""
CREATE TABLE shards (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL
);
CREATE TABLE forms (id INTEGER PRIMARY KEY, dtype TEXT, shape TEXT, UNIQUE (dtype, shape));
CREATE TABLE entries (
    key BLOB PRIMARY KEY,
    shard INTEGER NOT NULL,
    form INTEGER NOT NULL,
    offset INTEGER NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRow:
    """One finished shard."""

    id: int
    name: str
    size_bytes: int
    mtime_ns: int
    """When its checksum was last known to fit, the file had this time; of one in an object store
    the number that stands for its ETag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What entries have in common: a safetensors dtype and a shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """What a manifest said at one moment. Columns of equal length, sorted by key."""

    shards: dict[int, ShardRow]
    forms: dict[int, Form]
    keys: np.ndarray
    """Byte strings of KEY_BYTES."""
    shard_ids: np.ndarray
    form_ids: np.ndarray
    offsets: np.ndarray
    """Bytes from the start of the shard's file."""

    @classmethod
    def empty(cls) -> Snapshot:
        return cls(
            shards={},
            forms={},
            keys=np.empty(0, dtype=f"S{KEY_BYTES}"),
            shard_ids=np.empty(0, dtype=np.int32),
            form_ids=np.empty(0, dtype=np.int32),
            offsets=np.empty(0, dtype=np.int64),
        )

    @classmethod
    def of(cls, found: Iterable[tuple[ShardRow, Sequence[Entry]]]) -> Snapshot:
        """Return what some shards hold; of a key that several hold the first one counts."""
        shards: dict[int, ShardRow] = {}
        form_ids: dict[Form, int] = {}
        keys = bytearray()
        rows: list[np.ndarray] = [np.empty((0, 3), dtype=np.int64)]
        for shard, entries in found:
            shards[shard.id] = shard
            keys += bytes.fromhex("".join(entry.key for entry in entries))
            forms = (Form(dtype=entry.dtype, shape=entry.shape) for entry in entries)
            numbers = [form_ids.setdefault(form, len(form_ids)) for form in forms]
            part_N3 = np.empty((len(entries), 3), dtype=np.int64)
            part_N3[:, 0], part_N3[:, 1] = shard.id, numbers
            part_N3[:, 2] = [entry.offset for entry in entries]
            rows.append(part_N3)
        sorted_keys, firsts = np.unique(
            np.frombuffer(bytes(keys), dtype=f"S{KEY_BYTES}"), return_index=True
        )
        rows_N3 = np.concatenate(rows)[firsts]
        return cls(
            shards=shards,
            forms={number: form for form, number in form_ids.items()},
            keys=sorted_keys,
            shard_ids=rows_N3[:, 0].astype(np.int32),
            form_ids=rows_N3[:, 1].astype(np.int32),
            offsets=rows_N3[:, 2].copy(),
        )

    def row_of(self, key: str) -> int:
        """Return one key's row, or -1."""
        wanted = bytes.fromhex(key)
        row = int(self.keys.searchsorted(wanted))
        # numpy cuts zero bytes off the end of a byte string that it gives out.
        found = row < len(self.keys) and self.keys[row] == wanted.rstrip(b"\0")
        return row if found else -1

    def rows_of(self, keys: Sequence[str]) -> np.ndarray:
        """Return each key's row, or -1 for a key that is not there."""
        joined = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8)
        return self.rows_of_bytes(joined.reshape(-1, KEY_BYTES))

    def rows_of_bytes(self, keys_N16: np.ndarray) -> np.ndarray:
        """Return the same for keys as rows of uint8."""
        if not len(keys_N16):
            return np.empty(0, dtype=np.intp)
        wanted = np.ascontiguousarray(keys_N16).view(f"S{KEY_BYTES}").reshape(-1)
        if not len(self.keys):
            return np.full(len(wanted), -1, dtype=np.intp)
        rows = np.searchsorted(self.keys, wanted)
        rows[rows == len(self.keys)] = 0
        return np.where(self.keys[rows] == wanted, rows, -1)

    def size_of(self, row: int) -> int:
        """Return how many bytes a row's tensor has."""
        form = self.forms[int(self.form_ids[row])]
        return math.prod(form.shape) * NUMPY_OF[form.dtype].itemsize

    def key_at(self, row: int) -> str:
        """Return a row's key as hexadecimal digits."""
        # numpy cuts zero bytes off the end of a byte string.
        return bytes(self.keys[row]).ljust(KEY_BYTES, b"\0").hex()

    def without_shards(self, shard_ids: frozenset[int]) -> Snapshot:
        """Return the snapshot less some shards and what they hold."""
        if not shard_ids:
            return self
        keep = ~np.isin(self.shard_ids, list(shard_ids))
        return Snapshot(
            shards={id_: row for id_, row in self.shards.items() if id_ not in shard_ids},
            forms=self.forms,
            keys=self.keys[keep],
            shard_ids=self.shard_ids[keep],
            form_ids=self.form_ids[keep],
            offsets=self.offsets[keep],
        )


def read_snapshot(path: Path) -> Snapshot:
    """Load what a manifest says; an absent one is empty.

    Raises: DataError where the file is no manifest of this version.
    """
    if not path.exists():
        return Snapshot.empty()
    with (
        near(path, put_back=False) as local,
        named_sqlite_errors(path),
        contextlib.closing(_connect_for_reading(local)) as connection,
    ):
        _require_version(connection, path)
        # One transaction, so that a writer's commit between two statements is not half seen.
        connection.execute("BEGIN")
        return load_snapshot(connection)


def load_snapshot(connection: sqlite3.Connection) -> Snapshot:
    """Load what an open manifest says."""
    shards = {
        row[0]: ShardRow(id=row[0], name=row[1], size_bytes=row[2], mtime_ns=row[3])
        for row in connection.execute("SELECT id, name, size_bytes, mtime_ns FROM shards")
    }
    forms = {
        row[0]: Form(dtype=row[1], shape=_parse_shape(row[2]))
        for row in connection.execute("SELECT id, dtype, shape FROM forms")
    }
    (num_entries,) = connection.execute("SELECT count(*) FROM entries").fetchone()
    keys = np.empty(num_entries, dtype=f"S{KEY_BYTES}")
    shard_ids = np.empty(num_entries, dtype=np.int32)
    form_ids = np.empty(num_entries, dtype=np.int32)
    offsets = np.empty(num_entries, dtype=np.int64)
    cursor = connection.execute("SELECT key, shard, form, offset FROM entries ORDER BY key")
    start = 0
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        part = slice(start, start + len(rows))
        keys[part], shard_ids[part], form_ids[part], offsets[part] = zip(*rows, strict=True)
        start = part.stop
    return Snapshot(
        shards=shards,
        forms=forms,
        keys=keys,
        shard_ids=shard_ids,
        form_ids=form_ids,
        offsets=offsets,
    )


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open or make a manifest; the caller holds the store's lock.

    Raises: DataError where the file is no manifest of this version.
    """
    new = not path.exists() or path.stat().st_size == 0
    with named_sqlite_errors(path):
        # The writing thread is another one than the opening; they never use it at once.
        connection = sqlite3.connect(path, timeout=WAIT_FOR_LOCK_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = FULL")
            if new:
                with transaction(connection):
                    for statement in _SCHEMA.strip().split(";\n"):
                        connection.execute(statement)
            _require_version(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def add_shard(
    connection: sqlite3.Connection,
    *,
    name: str,
    size_bytes: int,
    mtime_ns: int,
    entries: Sequence[Entry],
    replace: bool = False,
) -> int:
    """Write a shard's rows and return how many were written.

    A key that is there already keeps its row, unless `replace` lets the new shard have it.
    """
    conflict = "REPLACE" if replace else "IGNORE"
    with transaction(connection):
        shard_id = connection.execute(
            "INSERT INTO shards (name, size_bytes, mtime_ns) VALUES (?, ?, ?)",
            (name, size_bytes, mtime_ns),
        ).lastrowid
        forms = {(entry.dtype, _format_shape(entry.shape)) for entry in entries}
        connection.executemany("INSERT OR IGNORE INTO forms (dtype, shape) VALUES (?, ?)", forms)
        form_ids = {
            (dtype, shape): form_id
            for form_id, dtype, shape in connection.execute("SELECT id, dtype, shape FROM forms")
        }
        return connection.executemany(
            f"INSERT OR {conflict} INTO entries (key, shard, form, offset) VALUES (?, ?, ?, ?)",
            (
                (
                    bytes.fromhex(entry.key),
                    shard_id,
                    form_ids[entry.dtype, _format_shape(entry.shape)],
                    entry.offset,
                )
                for entry in entries
            ),
        ).rowcount


def drop_shards(connection: sqlite3.Connection, shard_ids: Sequence[int]) -> None:
    """Take shards and what they hold out of the manifest."""
    with transaction(connection):
        for shard_id in shard_ids:
            connection.execute("DELETE FROM entries WHERE shard = ?", (shard_id,))
            connection.execute("DELETE FROM shards WHERE id = ?", (shard_id,))


def confirm_shard(connection: sqlite3.Connection, shard_id: int, mtime_ns: int) -> None:
    """Note that a shard whose file has a new time was checked and is whole."""
    with transaction(connection):
        connection.execute("UPDATE shards SET mtime_ns = ? WHERE id = ?", (mtime_ns, shard_id))


def _connect_for_reading(path: Path) -> sqlite3.Connection:
    if path.with_name(path.name + "-journal").exists():
        # A killed writer left it; only a connection that may write can roll it back.
        with contextlib.closing(sqlite3.connect(path, timeout=WAIT_FOR_LOCK_S)) as repairing:
            repairing.execute("SELECT count(*) FROM sqlite_master").fetchone()
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_FOR_LOCK_S
    )
    connection.isolation_level = None
    return connection


def _require_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise DataError(
            what=f"a cache's list of version {version}; this program reads {SCHEMA_VERSION}",
            where=str(path),
            fix="choose another cache_dir",
        )


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


def _parse_shape(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split("x"))
