"""The looks of pictures, remembered by content: each picture is decoded once for all runs.

In: paths. Out: each one's digest and look. Beside the digests of files, in one SQLite file.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sdft.cache.database import named_sqlite_errors
from sdft.cache.digests import FileDigests, FileVersion, KnownFile, read_with_digest
from sdft.dataset.lookalikes import Look, look_of
from sdft.dataset.pixels import decode_rgb
from sdft.errors import DataError
from sdft.events import Emit, StageFinished, StageProgress, StageStarted

STAGE = "comparing held-out pictures with those that are trained on"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS looks (
    digest TEXT PRIMARY KEY, bits TEXT, mirror_bits TEXT, tiny BLOB
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of one picture."""

    digest: str
    look: Look


def looks_of(
    paths: Sequence[Path], *, folder: Path, emit: Emit, max_workers: int
) -> dict[Path, Seen]:
    """Return the digest and look of each picture; one that cannot be decoded is left out.

    `folder` is that of the cache. Raises: DataError where its files cannot be used.
    """
    started_s = time.monotonic()
    emit(StageStarted(stage=STAGE, total=len(paths), unit="pictures"))
    found: dict[Path, Seen] = {}
    with FileDigests(folder / "digests.sqlite") as digests, _store(folder) as known:
        versions = {path: version for path in paths if (version := _version(path)) is not None}
        digest_of = dict(zip(versions, digests.remembered(versions.values()), strict=True))
        unknown = []
        for path, digest in digest_of.items():
            look = None if digest is None else _remembered(known, digest)
            if digest is None or look is None:
                unknown.append(path)
            else:
                found[path] = Seen(digest=digest, look=look)
        with ThreadPoolExecutor(max(1, max_workers)) as pool:
            for number, read in enumerate(pool.map(_read, unknown), start=len(found) + 1):
                emit(StageProgress(stage=STAGE, done=number))
                if read is None:
                    continue
                file, look = read
                digests.remember(file)
                values = (file.digest, str(look.bits), str(look.mirror_bits), look.tiny)
                known.execute("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?)", values)
                found[file.version.path] = Seen(digest=file.digest, look=look)
    emit(StageFinished(stage=STAGE, done=len(paths), duration_s=time.monotonic() - started_s))
    return found


@contextlib.contextmanager
def _store(folder: Path) -> Iterator[sqlite3.Connection]:
    file = folder / "looks.sqlite"
    with named_sqlite_errors(file), contextlib.closing(sqlite3.connect(file, timeout=60)) as store:
        store.execute(_SCHEMA)
        yield store
        store.commit()


def _remembered(store: sqlite3.Connection, digest: str) -> Look | None:
    wanted = "SELECT bits, mirror_bits, tiny FROM looks WHERE digest = ?"
    row = store.execute(wanted, (digest,)).fetchone()
    return None if row is None else Look(bits=int(row[0]), mirror_bits=int(row[1]), tiny=row[2])


def _version(path: Path) -> FileVersion | None:
    try:
        return FileVersion.of(path)
    except OSError:
        return None


def _read(path: Path) -> tuple[KnownFile, Look] | None:
    """Read and decode one picture; what cannot be read was rejected, and said, before."""
    try:
        file = read_with_digest(path)
        return file.known, look_of(decode_rgb(file.content))
    except (OSError, DataError):
        return None
