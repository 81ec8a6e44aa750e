"""Files that are whole or absent.

Every file that `sdft` writes is written under another name in the same folder, flushed to the
disk, and then renamed. Folders are made the same way. On Windows whoever reads a file may keep it
from being replaced or removed; each is tried again for a while, and then the file is named.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from sdft.errors import DataError, EnvironmentFault
from sdft.units import format_bytes
from sdft.windows import is_windows

PART_MARK = ".part-"
"""Stands in the name of every file that is not finished."""

RETRY_FOR_S = 10.0
"""How long a rename or removal is tried again while a virus scanner or reader holds the file."""

_HELD_WINERRORS = (5, 32, 33, 1224)
"""Access denied, sharing violation, lock violation, a file that is mapped."""

_CLOSE_HOLDER = (
    "close the program that holds it (a virus scanner, a viewer) and run the command again"
)

_Result = TypeVar("_Result")


def unfinished_name(path: Path) -> Path:
    """Return a name beside `path` under which it can be written until it is whole."""
    return path.with_name(f"{path.name}{PART_MARK}{uuid.uuid4().hex[:8]}")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; when the block ends without an error it becomes `path`.

    Raises: EnvironmentFault where the folder cannot be written or the disk is full, or where
        `path` stays held by another program; it then says where the new file is.
    """
    part = unfinished_name(path)
    try:
        with _named_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _full_disk_named(path):
            yield part
    except BaseException:
        _drop(part)
        raise
    _finish(part, path, [part])


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
        with _full_disk_named(path):
            yield part
    except BaseException:
        _drop(part)
        raise
    _finish(part, path, [file for file in part.rglob("*") if file.is_file()])
    with _named_os_errors(path):
        flush_folder(path.parent)


def stays_within(name: str) -> bool:
    """Tell whether a name from elsewhere, with / between its parts, leads to something in a folder.

    Not where a part is empty, `.` or `..`, or holds a backslash, which is a / on Windows.
    """
    return "\\" not in name and not any(part in ("", ".", "..") for part in name.split("/"))


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

    UTF-16 with its mark is read too: what PowerShell redirects into a file has it.

    Raises: DataError where the file is neither; OSError where it cannot be read.
    """
    content = path.read_bytes()
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            what=f"not a UTF-8 text file (byte {error.start})",
            where=str(path),
            fix="save it as UTF-8",
            key="not_utf8",
            values={"byte": error.start},
        ) from error


def in_form_of(path: Path, text: str) -> bytes:
    """Return text as UTF-8 with the byte-order mark and the line ends that a file has now.

    A file that is not there has no mark, and lines that end as in `text`.
    """
    try:
        old = path.read_bytes()
    except OSError:
        return text.encode("utf-8")
    mark = codecs.BOM_UTF8 if old.startswith(codecs.BOM_UTF8) else b""
    # An editor ends all lines alike, so the first one tells.
    if old[: old.find(b"\n") + 1].endswith(b"\r\n"):
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    return mark + text.encode("utf-8")


def flush_to_disk(path: Path) -> None:
    """Return when the file's content is on the disk, not only in the system's memory."""
    with while_held(lambda: path.open("rb+")) as file:
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
    while_held(lambda: os.replace(source, destination))


def swap(new: Path, path: Path) -> None:
    """Give a whole folder or file the name of another one, which is removed.

    A folder cannot be renamed over another in one step. Where the new one does not get the name,
    the old one has it as before.

    Raises: EnvironmentFault that says where the new one is.
    """
    if not path.exists():
        _finish(new, path, [])
        return
    old = unfinished_name(path)
    try:
        replace(path, old)
    except OSError as error:
        raise _kept_fault(new, path, error) from error
    try:
        replace(new, path)
    except OSError as error:
        replace(old, path)
        raise _kept_fault(new, path, error) from error
    remove(old)


def append_to(path: Path) -> BinaryIO:
    """Open a file to add to its end, trying again while somebody holds it."""
    return while_held(lambda: path.open("ab"))


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there, trying again while somebody holds it.

    A folder gets the name of an unfinished one first, so that half of it never looks like it.
    """
    if path.is_dir() and not path.is_symlink():
        aside = path if PART_MARK in path.name else unfinished_name(path)
        if aside != path:
            replace(path, aside)
        _remove_folder(aside)
    else:
        while_held(lambda: path.unlink(missing_ok=True))


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
            key="no_space",
            values={"needed": format_bytes(num_bytes), "free": format_bytes(free)},
        )


def while_held(operation: Callable[[], _Result]) -> _Result:
    """Do something to a file, again and again for a while where Windows says that it is held."""
    deadline = time.monotonic() + RETRY_FOR_S
    pause_s = 0.01
    while True:
        try:
            return operation()
        except OSError as error:
            if not _is_held(error) or time.monotonic() + pause_s > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.5)


def _remove_folder(folder: Path) -> None:
    """Remove a folder, with a while of patience for each file in it."""

    def again(function: Callable[..., object], path: str, error: BaseException) -> None:
        held = isinstance(error, OSError) and _is_held(error)
        if not held or function not in (os.unlink, os.rmdir):
            raise error
        while_held(lambda: function(path))

    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=again)
    else:
        shutil.rmtree(folder, onerror=lambda function, path, found: again(function, path, found[1]))


def _is_held(error: OSError) -> bool:
    winerror = getattr(error, "winerror", None)
    # What opens a file says it in the words of C, without Windows' number.
    in_words_of_c = winerror is None and error.errno == errno.EACCES and is_windows()
    return winerror in _HELD_WINERRORS or in_words_of_c


def _finish(part: Path, path: Path, files: Sequence[Path]) -> None:
    """Bring what is written to the disk and give it its name.

    Where another program holds it too long, it is kept under a name that is free.
    """
    try:
        for file in files:
            flush_to_disk(file)
        replace(part, path)
    except OSError as error:
        if not _is_held(error):
            _drop(part)
            raise _fault(path, error) from error
        raise _kept_fault(part, path, error) from error


def _drop(part: Path) -> None:
    """Remove what did not become whole; what cannot be removed is swept up by its mark later."""
    with contextlib.suppress(OSError):
        remove(part)


def _kept_fault(part: Path, path: Path, error: OSError) -> EnvironmentFault:
    number = 1
    while (kept := path.with_name(f"{path.stem}.new-{number}{path.suffix}")).exists():
        number += 1
    try:
        replace(part, kept)
    except OSError:
        kept = part
    return EnvironmentFault(
        what=f"another program holds it ({error.strerror or error}); what was to replace it is"
        f" whole in {kept.name}",
        where=str(path),
        fix=f"close the program that holds it and rename {kept.name}",
        key="held_and_kept",
        values={"reason": error.strerror or error, "kept": kept.name},
    )


_FAULT_KEYS = {
    errno.ENOSPC: "disk_full",
    errno.EACCES: "not_allowed",
    errno.EPERM: "not_allowed",
    errno.EROFS: "not_allowed",
}


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
        fix=_CLOSE_HOLDER if _is_held(error) else fixes.get(error.errno or 0, ""),
        key="held" if _is_held(error) else _FAULT_KEYS.get(error.errno or 0, "cannot_be_written"),
        values={"reason": error.strerror or error},
    )


@contextlib.contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Say that the disk of `path` is full; what else happens in the block is about other files."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _fault(path, error) from error
        raise


@contextlib.contextmanager
def _named_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _fault(path, error) from error
