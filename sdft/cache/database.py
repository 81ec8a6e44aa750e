"""What the cache's SQLite files have in common.

Rollback journal, one writing process; what SQLite says of a disk or a file becomes words.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sdft.errors import DataError, EnvironmentFault, SdftError, UserError

WAIT_FOR_LOCK_S = 60.0
"""Transactions are short; only a disk that hangs makes another process wait longer."""


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of a block's statements or none."""
    connection.isolation_level = None
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextlib.contextmanager
def named_sqlite_errors(path: Path) -> Iterator[None]:
    """Raise what SQLite says about `path` as DataError, EnvironmentFault or UserError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _in_words(path, error) from error


def is_broken(path: Path) -> bool:
    """Tell whether there is a file that is no database, or a damaged one."""
    if not path.exists():
        return False
    with contextlib.closing(sqlite3.connect(path, timeout=WAIT_FOR_LOCK_S)) as connection:
        try:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            return error.sqlite_errorname in ("SQLITE_NOTADB", "SQLITE_CORRUPT")
    return bool(found != "ok")


def _in_words(path: Path, error: sqlite3.DatabaseError) -> SdftError:
    name, where = getattr(error, "sqlite_errorname", ""), str(path)
    if name.startswith("SQLITE_BUSY"):
        return UserError("another process is writing it", where, "wait until that is done")
    if name.startswith("SQLITE_FULL"):
        return EnvironmentFault("the disk is full", where, "free some space")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR")):
        return EnvironmentFault(
            f"it cannot be read or written ({error})", where, "choose another cache_dir"
        )
    return DataError(f"it is not whole ({error})", where, "remove this file: it is made again")
