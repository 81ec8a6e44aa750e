"""Remembers headers and captions of image files in one SQLite file.

In: paths. Out: what an earlier index saw of them. Rollback journal; a copy on the local disk where
the file lies on a network share. Rows are looked up some hundred at a time and never all held.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sdft.cache.database import (
    WAIT_FOR_LOCK_S,
    is_broken,
    named_sqlite_errors,
    near,
    rows_by_path,
    transaction,
)
from sdft.dataset.remembered import Forgetful, ImageMemory, Remembered
from sdft.errors import SdftError
from sdft.events import Emit, Notice
from sdft.files import remove

FILE_NAME = "images.sqlite"

ROWS_AT_ONCE = 10_000

LOOKUPS_AT_ONCE = 500
"""SQLite takes at least 999 values in a statement."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY, file_bytes INTEGER, mtime_ns INTEGER, width INTEGER, height INTEGER,
    caption_file BLOB, caption_bytes INTEGER, caption_mtime_ns INTEGER, caption TEXT,
    unread_lines INTEGER, all_lines INTEGER
) WITHOUT ROWID
"""

_INSERT = "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class SqliteMemory:
    """An ImageMemory in an open file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._new: dict[bytes, Remembered] = {}

    def lookup(self, paths: Sequence[str]) -> list[Remembered | None]:
        """Return what was seen of each image file.

        Raises: DataError where the file is damaged.
        """
        found: list[Remembered | None] = []
        for start in range(0, len(paths), LOOKUPS_AT_ONCE):
            keys = [_key(path) for path in paths[start : start + LOOKUPS_AT_ONCE]]
            with named_sqlite_errors(self.path):
                rows = rows_by_path(self._connection, "SELECT * FROM images", keys)
            found += [_entry(rows[key]) if key in rows else None for key in keys]
        return found

    def note(self, seen: Sequence[tuple[str, Remembered]]) -> None:
        """Keep what was seen now.

        Raises: UserError, EnvironmentFault where it cannot be written.
        """
        self._new |= {_key(path): entry for path, entry in seen}
        if len(self._new) >= ROWS_AT_ONCE:
            self.write()

    def write(self) -> None:
        """Put what is new on the disk."""
        new, self._new = self._new, {}
        if new:
            with named_sqlite_errors(self.path), transaction(self._connection):
                self._connection.executemany(
                    _INSERT, (_row(key, entry) for key, entry in new.items())
                )


@contextlib.contextmanager
def image_memory(folder: Path, *, emit: Emit) -> Iterator[ImageMemory]:
    """Give the memory in a cache folder; leaving the block writes what is new.

    Where it cannot be used it is said, and nothing is remembered: an index is made all the same.
    """
    path = folder / FILE_NAME
    with contextlib.ExitStack() as opened:
        try:
            memory = opened.enter_context(_opened(path))
        except (SdftError, OSError) as error:
            _tell(error, path, emit)
            yield Forgetful()
            return
        yield memory
        try:
            memory.write()
        except SdftError as error:
            _tell(error, path, emit)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[SqliteMemory]:
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
            connection.execute(_SCHEMA)
            connection.commit()
        yield SqliteMemory(path, connection)


def _tell(error: SdftError | OSError, path: Path, emit: Emit) -> None:
    what = error.problems[0].what if isinstance(error, SdftError) else str(error)
    message = f"what is seen of images cannot be remembered in {path}: {what}"
    emit(Notice(severity="warning", topic="cache", message=message))


def _key(path: str) -> bytes:
    # File names are bytes on Linux and need not be text.
    return os.fsencode(path if path[:1] == "/" or os.path.isabs(path) else os.path.abspath(path))


def _row(key: bytes, entry: Remembered) -> tuple[object, ...]:
    name = None if entry.caption_file is None else os.fsencode(entry.caption_file)
    return key, *entry[:4], name, *entry[5:]


def _entry(row: tuple[Any, ...]) -> Remembered:
    name = None if row[5] is None else os.fsdecode(row[5])
    return Remembered._make((*row[1:5], name, *row[6:10], bool(row[10])))
