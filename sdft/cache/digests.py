"""Digests of files, remembered so that a second start reads none of them again.

In: paths with their size and time. Out: digests of their content. One SQLite file holds what is
known; one process writes it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

from sdft.cache.database import (
    WAIT_FOR_LOCK_S,
    named_sqlite_errors,
    near,
    path_keys,
    rows_by_path,
    transaction,
)
from sdft.cache.shared_table import SharedTable
from sdft.dataset.objects import StatedPath
from sdft.errors import DataError

DIGEST_BYTES = 16

YOUNG_FOR_NS = 2_000_000_000
"""A file written less than 2 s ago may change again under the same time: FAT counts in 2 s."""

TRIES = 3
"""How often a file that changes while it is read is read again."""

ROWS_AT_ONCE = 10_000

FILES_AT_ONCE = 2000
"""One question to the file; so many rows are held at a time."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (
    path BLOB PRIMARY KEY, size_bytes INTEGER, mtime_ns INTEGER, digest BLOB
) WITHOUT ROWID
"""

_SELECT = "SELECT path, size_bytes, mtime_ns, digest FROM digests"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVersion:
    """One state of a file on the disk."""

    path: Path
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileVersion:
        """Return the state of a file now.

        Raises: OSError.
        """
        status = path.stat()
        return cls(path=path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """The digest of one state of a file."""

    version: FileVersion
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    """A file's bytes and what they are the bytes of."""

    content: bytes
    known: KnownFile


def read_with_digest(path: Path) -> ReadFile:
    """Read a file of which no part changed meanwhile.

    Raises: DataError where it keeps changing; OSError where it cannot be read.
    """
    if isinstance(path, StatedPath):
        # Its state is that of the listing; reading tells where it is no longer the same.
        return _with_digest(path.read_bytes(), FileVersion.of(path))
    for _ in range(TRIES):
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            content = file.read()
            after = os.fstat(file.fileno())
        same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        if same and len(content) == after.st_size:
            version = FileVersion(path=path, size_bytes=after.st_size, mtime_ns=after.st_mtime_ns)
            return _with_digest(content, version)
    raise DataError(what="it keeps changing while it is read", where=str(path))


def _with_digest(content: bytes, version: FileVersion) -> ReadFile:
    digest = blake2b(content, digest_size=DIGEST_BYTES).hexdigest()
    return ReadFile(content=content, known=KnownFile(version=version, digest=digest))


class FileDigests:
    """What is known of files' contents. A context manager; leaving it writes what is new."""

    def __init__(self, path: Path, shared: SharedTable | None = None) -> None:
        """`shared` is where other machines' rows are, and these too when the block ends."""
        self.path = path
        self._shared = shared
        self._new: dict[bytes, KnownFile] = {}

    def __enter__(self) -> FileDigests:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            local = opened.enter_context(near(self.path, put_back=True))
            with named_sqlite_errors(self.path):
                self._connection = opened.enter_context(
                    contextlib.closing(sqlite3.connect(local, timeout=WAIT_FOR_LOCK_S))
                )
                self._connection.execute(_SCHEMA)
                self._connection.commit()
            if self._shared is not None:
                self._shared.take_in(self._connection)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._opened:
            self.write()
            if self._shared is not None:
                self._shared.send(self._connection)

    def remembered(self, versions: Iterable[FileVersion]) -> list[str | None]:
        """Return each file's digest, or None where this state of it was not seen before."""
        states = list(versions)
        return self.remembered_of(
            [os.fspath(state.path) for state in states],
            [state.size_bytes for state in states],
            [state.mtime_ns for state in states],
        )

    def remembered_of(
        self, paths: Sequence[str], sizes_bytes: Sequence[int], mtimes_ns: Sequence[int]
    ) -> list[str | None]:
        """Return the same for files whose states stand in columns."""
        digests: list[str | None] = []
        for start in range(0, len(paths), FILES_AT_ONCE):
            part = slice(start, start + FILES_AT_ONCE)
            with named_sqlite_errors(self.path):
                rows = rows_by_path(self._connection, _SELECT, path_keys(paths[part]))
            digests += [
                row[3].hex()
                if row is not None and row[1] == size_bytes and row[2] == mtime_ns
                else None
                for row, size_bytes, mtime_ns in zip(
                    rows, sizes_bytes[part], mtimes_ns[part], strict=True
                )
            ]
        return digests

    def remember(self, file: KnownFile) -> None:
        """Note a digest, unless the file is so young that it could change unseen."""
        if time.time_ns() - file.version.mtime_ns >= YOUNG_FOR_NS:
            (key,) = path_keys([os.fspath(file.version.path)])
            self._new[key] = file
            if len(self._new) >= ROWS_AT_ONCE:
                self.write()

    def write(self) -> None:
        """Put what is new on the disk."""
        rows = [
            (key, file.version.size_bytes, file.version.mtime_ns, bytes.fromhex(file.digest))
            for key, file in self._new.items()
        ]
        self._new = {}
        if rows:
            with named_sqlite_errors(self.path), transaction(self._connection):
                self._connection.executemany(
                    "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", rows
                )

    def digest(self, path: Path) -> str:
        """Return a file's digest, reading it only where its state is new.

        Raises: DataError, OSError.
        """
        (remembered,) = self.remembered([FileVersion.of(path)])
        if remembered is not None:
            return remembered
        known = read_with_digest(path).known
        self.remember(known)
        return known.digest
