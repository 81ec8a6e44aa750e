"""Files that are whole or absent.

Every file that `sdft` writes is written under another name in the same folder, flushed to the
disk, and then renamed. Folders are made the same way.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sdft.errors import DataError, EnvironmentFault
from sdft.units import format_bytes

PART_MARK = ".part-"
"""Stands in the name of every file that is not finished."""

RETRY_FOR_S = 10.0
"""How long a rename or removal is tried again while a virus scanner or reader holds the file."""

_HELD_WINERRORS = (5, 32, 33)
"""Access denied, sharing violation, lock violation."""

_Result = TypeVar("_Result")


def unfinished_name(path: Path) -> Path:
    """Return a name beside `path` under which it can be written until it is whole."""
    return path.with_name(f"{path.name}{PART_MARK}{uuid.uuid4().hex[:8]}")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; when the block ends without an error it becomes `path`.

    Raises: EnvironmentFault where the folder cannot be written or the disk is full.
    """
    part = unfinished_name(path)
    try:
        with _named_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        # The block runs outside of the renaming of errors: what it raises about other files
        # is not about `path`; only a full disk surely is.
        try:
            yield part
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _fault(path, error) from error
            raise
        with _named_os_errors(path):
            flush_to_disk(part)
            replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends without an error it becomes `path`.

    Raises: FileExistsError where `path` exists: a folder is never written over;
        EnvironmentFault where it cannot be written or the disk is full.
    """
    if path.exists():
        raise FileExistsError(path)
    part = unfinished_name(path)
    try:
        with _named_os_errors(path):
            part.mkdir(parents=True)
        try:
            yield part
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _fault(path, error) from error
            raise
        with _named_os_errors(path):
            for file in part.rglob("*"):
                if file.is_file():
                    flush_to_disk(file)
            replace(part, path)
            flush_folder(path.parent)
    finally:
        if part.exists():
            shutil.rmtree(part, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises: EnvironmentFault.
    """
    with _named_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none."""
    with whole_file(path) as part, _named_os_errors(path):
        part.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or none, line ends as they stand in `text`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a whole JSON file in ASCII or none."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def read_text(path: Path) -> str:
    """Read UTF-8, without the byte-order mark that Windows editors put in front.

    Raises: DataError where the file is not UTF-8; OSError where it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            what=f"not a UTF-8 text file (byte {error.start})",
            where=str(path),
            fix="save it as UTF-8",
        ) from error


def flush_to_disk(path: Path) -> None:
    """Return when the file's content is on the disk, not only in the system's memory."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Return when renames and removals inside a folder are on the disk.

    What is removed afterwards cannot be gone after a power cut while what replaces it is not yet
    there. Windows has no such call and orders them itself.
    """
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(source: Path, destination: Path) -> None:
    """Rename, trying again for a while where Windows says that somebody holds the file."""
    _while_held(lambda: os.replace(source, destination))


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there, trying again while somebody holds it.

    A folder gets the name of an unfinished one first, so that half of it never looks like it.
    """
    if path.is_dir() and not path.is_symlink():
        aside = path if PART_MARK in path.name else unfinished_name(path)
        if aside != path:
            replace(path, aside)
        _while_held(lambda: shutil.rmtree(aside))
    else:
        _while_held(lambda: path.unlink(missing_ok=True))


def unfinished_in(folder: Path, beginning: str = "") -> list[Path]:
    """Return what a process that died left unfinished in a folder, of names that begin so."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in names if name.startswith(beginning) and PART_MARK in name]


def require_space(folder: Path, num_bytes: int, what_for: str) -> None:
    """Check that the disk of `folder` (or of its nearest parent that exists) has room.

    Raises: EnvironmentFault.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise EnvironmentFault(
            what=f"{what_for} needs {format_bytes(num_bytes)}, {format_bytes(free)} are free",
            where=str(folder),
            fix="free some space or choose another folder",
        )


def _while_held(operation: Callable[[], _Result]) -> _Result:
    deadline = time.monotonic() + RETRY_FOR_S
    pause_s = 0.01
    while True:
        try:
            return operation()
        except OSError as error:
            held = getattr(error, "winerror", None) in _HELD_WINERRORS
            if not held or time.monotonic() + pause_s > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.5)


def _fault(path: Path, error: OSError) -> EnvironmentFault:
    fixes = {
        errno.ENOSPC: "free some space or choose another folder",
        errno.EACCES: "choose a folder that you may write to",
        errno.EPERM: "choose a folder that you may write to",
        errno.EROFS: "choose a folder that you may write to",
        errno.ENOTDIR: "a part of this path is a file; choose another folder",
        errno.EEXIST: "a part of this path is a file; choose another folder",
    }
    return EnvironmentFault(
        what=f"cannot be written: {error.strerror or error}",
        where=str(path),
        fix=fixes.get(error.errno or 0, ""),
    )


@contextlib.contextmanager
def _named_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _fault(path, error) from error
