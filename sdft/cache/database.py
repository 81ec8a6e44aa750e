"""What the cache's SQLite files have in common.

Rollback journal, one writing process, a local copy where the file lies on a network share; what
SQLite says of a disk or a file becomes words.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from sdft.errors import DataError, EnvironmentFault, SdftError, UserError
from sdft.files import whole_file
from sdft.urls import is_url

LOOKUPS_AT_ONCE = 500
"""SQLite takes at least 999 values in a statement."""

WAIT_FOR_LOCK_S = 60.0
"""Transactions are short; only a disk that hangs makes another process wait longer."""


NETWORK_FILE_SYSTEMS = frozenset(
    (
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "afpfs",
        "9p",
        "ceph",
        "lustre",
        "beegfs",
        "gpfs",
        "glusterfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.rclone",
        "davfs",
        "webdav",
    )
)
"""Where file locks, on which SQLite relies, hold not at all or not always."""


def is_on_network(folder: Path) -> bool:
    """Tell whether a folder, or the nearest of its parents that exists, is on a network share."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    name = os.path.realpath(existing)
    if name.startswith("\\\\"):
        return True
    mounts = psutil.disk_partitions(all=True)
    holding = [mount for mount in mounts if Path(name).is_relative_to(mount.mountpoint)]
    if not holding:
        return False
    nearest = max(holding, key=lambda mount: len(mount.mountpoint))
    # Windows says it in the options, Linux in the type.
    return nearest.fstype.lower() in NETWORK_FILE_SYSTEMS or "remote" in nearest.opts.split(",")


@contextlib.contextmanager
def near(path: Path, *, put_back: bool) -> Iterator[Path]:
    """Give the path under which an SQLite file may be opened.

    That is `path` itself, but a local copy where it lies on a network share. With `put_back` a
    copy that was changed replaces the file when the block ends; until then others see the old.
    """
    if not is_on_network(path.parent):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sdft-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / path.name
        if path.exists():
            shutil.copyfile(path, copy)
        before_ns = copy.stat().st_mtime_ns if copy.exists() else 0
        try:
            yield copy
        finally:
            if put_back and copy.exists() and copy.stat().st_mtime_ns != before_ns:
                with whole_file(path) as part:
                    shutil.copyfile(copy, part)


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


def path_keys(paths: Sequence[str]) -> list[bytes]:
    """Return the primary keys of files. File names are bytes on Linux and need not be text."""
    if not paths:
        return []
    whole = [
        path if path[:1] == "/" or os.path.isabs(path) or is_url(path) else os.path.abspath(path)
        for path in paths
    ]
    # All in one: no path holds a zero, and a call for each takes longer than looking it up.
    return os.fsencode("\0".join(whole)).split(b"\0")


def rows_by_path(
    connection: sqlite3.Connection, select: str, keys: Sequence[bytes]
) -> list[tuple[Any, ...] | None]:
    """Return for each key the row whose first column, the primary key `path`, is it, or None.

    Neighbours in a folder are neighbours in the table too: reading on from the first to the last
    takes a third of the time of looking each up, as long as few others lie between.
    """
    if not keys:
        return []
    most = 2 * len(keys)
    rows = connection.execute(
        f"{select} WHERE path BETWEEN ? AND ? LIMIT ?", (min(keys), max(keys), most + 1)
    ).fetchall()
    if len(rows) > most:
        rows = []
        for start in range(0, len(keys), LOOKUPS_AT_ONCE):
            part = keys[start : start + LOOKUPS_AT_ONCE]
            marks = ",".join("?" * len(part))
            rows += connection.execute(f"{select} WHERE path IN ({marks})", part)
    elif [row[0] for row in rows] == keys:
        return rows
    found = {row[0]: row for row in rows}
    return [found.get(key) for key in keys]


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
