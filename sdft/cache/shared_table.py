"""What is known of objects of a store, shared between machines: one table in one object.

In: an open SQLite file of this machine. Out: rows of others in it, and its rows in the store. Only
rows whose path is a URL are shared: what a path of a disk means, each machine knows for itself.

Nothing shuts out another machine that writes at the same time. What it knew is taken in before
this one's is sent; a row that is lost all the same costs one more read of an object.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft.cache.database import transaction
from sdft.dataset.drivers import opened, state_of, with_retries
from sdft.events import Emit, Notice, ignore

TOPIC = "cache"

_NOTED = (
    "CREATE TABLE IF NOT EXISTS shared (name TEXT PRIMARY KEY, size_bytes INTEGER, mark INTEGER)"
)

_IS_URL = "instr(path, CAST('://' AS BLOB)) > 0"
"""A path of a disk has no two slashes in a row."""


@dataclass(kw_only=True)
class SharedTable:
    """One table's rows in a store. Whatever goes wrong is said, and only costs work."""

    url: str
    table: str
    emit: Emit = ignore
    _changes: int = -1

    def take_in(self, connection: sqlite3.Connection) -> None:
        """Put what other machines know into a table, unless nothing is new there."""
        try:
            # Theirs is newer than what was known here at an earlier start.
            self._take_in(connection, "REPLACE")
        except (OSError, sqlite3.DatabaseError) as error:
            self._tell("what other machines know of the images cannot be read", error)
        self._changes = connection.total_changes

    def send(self, connection: sqlite3.Connection) -> None:
        """Let other machines know what is new here."""
        if connection.total_changes == self._changes:
            return
        try:
            with contextlib.suppress(sqlite3.DatabaseError):
                # What this machine has just seen is no older.
                self._take_in(connection, "IGNORE")
            self._send(connection)
        except (OSError, sqlite3.DatabaseError) as error:
            self._tell("what is known of the images cannot be told to other machines", error)
        self._changes = connection.total_changes

    def _take_in(self, connection: sqlite3.Connection, conflict: str) -> None:
        connection.execute(_NOTED)
        state = self._state()
        noted = connection.execute(
            "SELECT size_bytes, mark FROM shared WHERE name = ?", (self.table,)
        ).fetchone()
        if state is None or state == noted:
            return
        system, name = opened(self.url)
        with _beside() as file:
            with_retries(lambda: system.get_file(name, str(file)), self.url, self._note)
            with _attached(connection, file), transaction(connection):
                connection.execute(
                    f"INSERT OR {conflict} INTO main.{self.table} SELECT * FROM theirs.{self.table}"
                    f" WHERE {_IS_URL}"
                )
                self._remember(connection, state)

    def _send(self, connection: sqlite3.Connection) -> None:
        query = f"SELECT 1 FROM main.{self.table} WHERE {_IS_URL} LIMIT 1"
        if connection.execute(query).fetchone() is None:
            return
        system, name = opened(self.url, writes=True)
        with _beside() as file:
            with _attached(connection, file):
                schema = connection.execute(
                    "SELECT sql FROM main.sqlite_master WHERE name = ?", (self.table,)
                ).fetchone()[0]
                with transaction(connection):
                    connection.execute(
                        schema.replace(f"TABLE {self.table}", f"TABLE theirs.{self.table}", 1)
                    )
                    connection.execute(
                        f"INSERT INTO theirs.{self.table} SELECT * FROM main.{self.table}"
                        f" WHERE {_IS_URL}"
                    )
            with_retries(
                lambda: system.put_file(str(file), name), self.url, self._note, done="written"
            )
        state = self._state()
        if state is not None:
            with transaction(connection):
                self._remember(connection, state)

    def _remember(self, connection: sqlite3.Connection, state: tuple[int, int]) -> None:
        connection.execute("INSERT OR REPLACE INTO shared VALUES (?, ?, ?)", (self.table, *state))

    def _state(self) -> tuple[int, int] | None:
        """Return the state of the object, or None where there is none. One request."""
        system, name = opened(self.url, writes=True)
        try:
            facts: dict[str, Any] = with_retries(lambda: system.info(name), self.url, self._note)
        except FileNotFoundError:
            return None
        return state_of(self.url, facts)

    def _tell(self, what: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        self._note(f"{what} ({reason}): {self.url}")

    def _note(self, text: str) -> None:
        self.emit(Notice(severity="warning", topic=TOPIC, message=text))


@contextlib.contextmanager
def _beside() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sdft-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "shared.sqlite"


@contextlib.contextmanager
def _attached(connection: sqlite3.Connection, file: Path) -> Iterator[None]:
    # A file from elsewhere: no function that its schema names is run.
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("ATTACH ? AS theirs", (str(file),))
    try:
        yield
    finally:
        connection.execute("DETACH theirs")
