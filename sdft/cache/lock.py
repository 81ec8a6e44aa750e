"""Keeps two processes from writing one store.

The lock is a transaction that is held open in a small SQLite file: the system lets go of it when
the process ends, however it ends, so no lock is ever stale.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sqlite3
import tempfile
from hashlib import blake2b
from pathlib import Path

from sdft.cache.database import is_on_network, transaction
from sdft.errors import EnvironmentFault, UserError

LOCK_NAME = "writer.lock"

WAIT_FOR_WRITER_S = 1.0
"""Another writer works for minutes or hours: no use in waiting for it here."""


class StoreLock:
    """Held by one process; the system lets go of it when that process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises: UserError that names the process which holds it; EnvironmentFault where the
        folder cannot be written.
        """
        try:
            connection = sqlite3.connect(
                _lock_file(self._folder),
                timeout=WAIT_FOR_WRITER_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.OperationalError as error:
            raise unwritable(self._folder, error) from error
        try:
            connection.execute("CREATE TABLE IF NOT EXISTS holder (pid INTEGER, host TEXT)")
            with transaction(connection):
                connection.execute("DELETE FROM holder")
                connection.execute(
                    "INSERT INTO holder VALUES (?, ?)", (os.getpid(), platform.node())
                )
            # Held until `release`; the rows above are already there for others to read.
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            with contextlib.closing(connection):
                if error.sqlite_errorname != "SQLITE_BUSY":
                    raise unwritable(self._folder, error) from error
                holder = connection.execute("SELECT pid, host FROM holder").fetchone()
            raise UserError(
                what=f"process {holder[0]} on {holder[1]} is writing this cache",
                where=str(self._folder),
                fix="wait until it is done, or choose another cache_dir",
            ) from error
        self._connection = connection

    def release(self) -> None:
        if self._connection is not None:
            self._connection.execute("ROLLBACK")
            self._connection.close()
            self._connection = None


def unwritable(folder: Path, error: Exception) -> EnvironmentFault:
    """Return the fault of a cache that cannot be written."""
    reason = getattr(error, "strerror", None) or str(error)
    return EnvironmentFault(
        what=f"the cache cannot be written ({reason})",
        where=str(folder),
        fix="choose another cache_dir",
    )


def _lock_file(folder: Path) -> Path:
    if not is_on_network(folder):
        return folder / LOCK_NAME
    # Locks do not hold on a network share. Writers on other machines are shut out by nothing, but
    # they do no harm: shards have names of their own, and the next writer takes them in.
    name = blake2b(os.fsencode(folder.resolve()), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"sdft-{name}.lock"
