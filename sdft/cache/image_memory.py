"""Remembers headers and captions of image files in one SQLite file.

In: paths. Out: what an earlier index saw of them. Rollback journal; a copy on the local disk where
the file lies on a network share. Rows are looked up some thousand at a time and never all held.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sdft.cache.database import (
    WAIT_FOR_LOCK_S,
    is_broken,
    named_sqlite_errors,
    near,
    path_keys,
    rows_by_path,
    transaction,
)
from sdft.cache.shared_table import SharedTable
from sdft.dataset.remembered import (
    NUMBERS,
    Forgetful,
    ImageMemory,
    Remembered,
    RememberedTable,
    numbers_of,
)
from sdft.errors import DataError, SdftError
from sdft.events import Emit, Notice
from sdft.files import remove

FILE_NAME = "images.sqlite"

ROWS_AT_ONCE = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    path BLOB PRIMARY KEY, numbers BLOB, caption_file BLOB, caption TEXT
) WITHOUT ROWID
"""
"""The numbers lie in one value: SQLite hands out a row of few columns in half the time."""

_OLDER = "DROP TABLE IF EXISTS images"
"""One column for each number; what it held can all be read again from the images."""

_SELECT = "SELECT path, numbers, caption_file, caption FROM seen"
_INSERT = "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)"

_NUMBERS = struct.Struct(f"<{len(NUMBERS)}q")
_UNKNOWN = (b"", bytes(_NUMBERS.size), b"", "")


class SqliteMemory:
    """An ImageMemory in an open file."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, shared: SharedTable | None = None
    ) -> None:
        self.path = path
        self._shared = shared
        self._connection = connection
        self._new: dict[bytes, Remembered] = {}

    def lookup(self, paths: Sequence[str]) -> RememberedTable:
        """Return what was seen of each image file.

        Raises: DataError where the file is damaged.
        """
        if not paths:
            return RememberedTable.unknown(0)
        with named_sqlite_errors(self.path):
            rows = rows_by_path(self._connection, _SELECT, path_keys(paths))
        _, numbers, names, captions = zip(*(row or _UNKNOWN for row in rows), strict=True)
        whole = b"".join(numbers)
        if len(whole) != _NUMBERS.size * len(rows):
            raise DataError("it is not whole", str(self.path), "remove this file: it is made again")
        numbers_N8 = np.frombuffer(whole, dtype="<i8").reshape(len(rows), len(NUMBERS))
        return RememberedTable(
            known_N=np.array([row is not None for row in rows], dtype=bool),
            numbers_N8=numbers_N8.astype(np.int64, copy=False),
            caption_files=os.fsdecode(b"\0".join(names)).split("\0"),
            captions=list(captions),
        )

    def note(self, seen: Sequence[tuple[str, Remembered]]) -> None:
        """Keep what was seen now.

        Raises: UserError, EnvironmentFault where it cannot be written.
        """
        keys = path_keys([path for path, _ in seen])
        self._new |= {key: entry for key, (_, entry) in zip(keys, seen, strict=True)}
        if len(self._new) >= ROWS_AT_ONCE:
            self.write()

    def share(self) -> None:
        """Tell other machines what is new."""
        if self._shared is not None:
            self._shared.send(self._connection)

    def write(self) -> None:
        """Put what is new on the disk."""
        new, self._new = self._new, {}
        if new:
            with named_sqlite_errors(self.path), transaction(self._connection):
                self._connection.executemany(
                    _INSERT, (_row(key, entry) for key, entry in new.items())
                )


@contextlib.contextmanager
def image_memory(
    folder: Path, *, emit: Emit, shared: SharedTable | None = None
) -> Iterator[ImageMemory]:
    """Give the memory in a cache folder; leaving the block writes what is new, also to where it
    is `shared`.

    Where it cannot be used it is said, and nothing is remembered: an index is made all the same.
    """
    path = folder / FILE_NAME
    with contextlib.ExitStack() as opened:
        try:
            memory = opened.enter_context(_opened(path, shared))
        except (SdftError, OSError) as error:
            _tell(error, path, emit)
            yield Forgetful()
            return
        yield memory
        try:
            memory.write()
        except SdftError as error:
            _tell(error, path, emit)
        else:
            memory.share()


@contextlib.contextmanager
def _opened(path: Path, shared: SharedTable | None) -> Iterator[SqliteMemory]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as opened:
        local = opened.enter_context(near(path, put_back=True))
        # What it holds can all be read again from the images.
        if is_broken(local):
            remove(local)
        with named_sqlite_errors(path):
            connection = opened.enter_context(
                contextlib.closing(sqlite3.connect(local, timeout=WAIT_FOR_LOCK_S))
            )
            connection.execute(_OLDER)
            connection.execute(_SCHEMA)
            connection.commit()
        if shared is not None:
            shared.take_in(connection)
        yield SqliteMemory(path, connection, shared)


def _tell(error: SdftError | OSError, path: Path, emit: Emit) -> None:
    what = error.problems[0].what if isinstance(error, SdftError) else str(error)
    message = f"what is seen of images cannot be remembered in {path}: {what}"
    emit(Notice(severity="warning", topic="cache", message=message))


def _row(key: bytes, entry: Remembered) -> tuple[object, ...]:
    return (
        key,
        _NUMBERS.pack(*numbers_of(entry)),
        os.fsencode(entry.caption_file or ""),
        entry.caption,
    )
