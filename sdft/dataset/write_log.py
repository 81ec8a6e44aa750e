"""Remembers what `sdft` wrote among a person's files, so that it can tell its own words from
theirs, go on where it stopped, and put back what it replaced.

In every folder where words are written there is `.sdft/writes.jsonl`, one object a line:

    {"command": id, "line": what was run, "settings": digest}     a command begins
    {"command": id, "file": name, "after": digest, ...}           a file is about to be written
    {"finished": id}  {"undone": id}

A line is written before its file. So if a power cut comes in between, the file's content fits no
line of its own and counts as what it was before.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sdft.errors import EnvironmentFault
from sdft.files import append_to, whole_file, write_bytes

FOLDER = ".sdft"
LOG = "writes.jsonl"

INLINE_BYTES = 1 << 16
"""Up to this size the replaced content stands in the log, a larger one in a file beside it."""

ABSENT = "absent"
SAME = "ours, by the same settings"
OTHER = "ours, by other settings"
FOREIGN = "not ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What an undo did."""

    line: str
    """The command that was undone; empty where there was none."""
    restored: tuple[Path, ...]
    edited: tuple[Path, ...]
    """Changed by somebody since, so left as they are."""
    new: tuple[Path, ...]
    """Made by the command where nothing was before; left as they are."""


@dataclass(slots=True)
class _FolderLog:
    """The log of one folder, read once and kept up to date."""

    path: Path
    writes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    undone: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, folder: Path) -> _FolderLog:
        log = cls(folder / FOLDER / LOG)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for line in log.path.read_bytes().splitlines():
                # The last line of a killed process may be cut off.
                with contextlib.suppress(ValueError):
                    log._take(json.loads(line))
        return log

    def append(self, record: dict[str, Any]) -> None:
        self._take(record)
        try:
            self.path.parent.mkdir(exist_ok=True)
            with append_to(self.path) as file:
                # A line end in front separates it from a line that was cut off.
                torn = file.tell() > 0 and not self._ends_with_line_end()
                file.write(b"\n" * torn + json.dumps(record).encode("ascii") + b"\n")
        except OSError as error:
            raise EnvironmentFault(
                what=f"cannot be written: {error.strerror or error}",
                where=str(self.path.parent.parent),
                fix="choose a folder that you may write to",
            ) from error

    def _ends_with_line_end(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _take(self, record: Any) -> None:
        if not isinstance(record, dict):
            return
        if "file" in record:
            self.writes.setdefault(str(record["file"]), []).append(record)
        elif "command" in record:
            self.commands[str(record["command"])] = record
        elif "finished" in record:
            self.finished.add(str(record["finished"]))
        elif "undone" in record:
            self.undone.add(str(record["undone"]))

    def last_command(self, file: str | None = None) -> dict[str, Any] | None:
        names = self.commands.keys() - self.undone
        if file is not None:
            names &= {str(write["command"]) for write in self.writes.get(file, ())}
        return max((self.commands[name] for name in names), key=_time_s, default=None)


@dataclass(slots=True)
class WriteLog:
    """The writes of one command, in any number of folders. May be used by several threads."""

    line: str
    """What the person ran, for showing."""
    settings: str
    """Digest of all that decides the words; equal settings go on where the last run stopped."""
    _logs: dict[Path, _FolderLog] = field(default_factory=dict)
    _command: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _started: dict[Path, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def origin(self, path: Path, about: Sequence[int] = ()) -> str:
        """Tell who wrote a file: ABSENT, SAME, OTHER or FOREIGN.

        `about` is the stamp of the image that the words are about; SAME needs the same stamp.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return ABSENT
        with self._lock:
            writes = self._log(path.parent).writes.get(path.name, [])
        after = _digest(content)
        made = next((one for one in reversed(writes) if one.get("after") == after), None)
        if made is None:
            return FOREIGN
        if made.get("settings") == self.settings and made.get("about") == list(about):
            return SAME
        return OTHER if made.get("whole") else FOREIGN

    def write(
        self, path: Path, content: bytes, *, about: Sequence[int] = (), whole: bool = True
    ) -> None:
        """Write a file after noting what it replaces.

        `whole` is false where the content keeps words that are not ours.

        Raises: EnvironmentFault where the folder cannot be written.
        """
        with self._lock:
            self._note(path, _digest(content), about, whole)
        write_bytes(path, content)

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """Give a path to write to; at the end it is noted and becomes `path`."""
        with whole_file(path) as part:
            yield part
            with self._lock:
                self._note(path, _digest(part.read_bytes()), (), True)

    def finish(self) -> None:
        """Note that the command came to its end."""
        with self._lock:
            for folder, command in self._started.items():
                self._logs[folder].append({"finished": command})

    def _log(self, folder: Path) -> _FolderLog:
        if folder not in self._logs:
            self._logs[folder] = _FolderLog.read(folder)
        return self._logs[folder]

    def _note(self, path: Path, after: str, about: Sequence[int], whole: bool) -> None:
        log = self._log(path.parent)
        record = {
            "command": self._begin(path.parent),
            "file": path.name,
            "before": _keep(path, log.path.parent),
            "after": after,
            "settings": self.settings,
            "about": list(about),
            "whole": whole,
        }
        log.append(record)

    def _begin(self, folder: Path) -> str:
        """Return this command's name in a folder; a run that was killed goes on under its own."""
        if folder not in self._started:
            log = self._log(folder)
            last = log.last_command()
            goes_on = (
                last is not None
                and last.get("settings") == self.settings
                and last["command"] not in log.finished
            )
            self._started[folder] = str(last["command"]) if last and goes_on else self._command
            if not goes_on:
                log.append(
                    {
                        "command": self._command,
                        "line": self.line,
                        "settings": self.settings,
                        "time": round(time.time(), 3),
                    }
                )
        return self._started[folder]


def undo(folders: Sequence[Path], file: str | None = None) -> Undone:
    """Put back what the last command replaced in these folders; twice goes back two commands.

    With `file` it is the last command that wrote a file of this name. What somebody changed since
    is left alone, and so is what the command newly made.
    """
    logs = [_FolderLog.read(folder) for folder in folders]
    lasts = [last for log in logs if (last := log.last_command(file)) is not None]
    if not lasts:
        return Undone(line="", restored=(), edited=(), new=())
    last = max(lasts, key=_time_s)
    command = str(last["command"])
    found: dict[str, list[Path]] = {"restored": [], "edited": [], "new": []}
    for log in logs:
        if command not in log.commands:
            continue
        for name, writes in log.writes.items():
            ours = [write for write in writes if write["command"] == command]
            if ours:
                path = log.path.parent.parent / name
                found[_put_back(path, ours, log.path.parent)].append(path)
        log.append({"undone": command})
    return Undone(
        line=str(last.get("line", "")),
        restored=tuple(found["restored"]),
        edited=tuple(found["edited"]),
        new=tuple(found["new"]),
    )


def _time_s(command: dict[str, Any]) -> float:
    return float(command.get("time", 0))


def logged_folders(root: Path) -> list[Path]:
    """Return the folders at and below `root` in which something was written."""
    return sorted(log.parent.parent for log in root.rglob(f"{FOLDER}/{LOG}"))


def _put_back(path: Path, writes: Sequence[dict[str, Any]], log_folder: Path) -> str:
    before = writes[0]["before"]
    if before is None:
        return "new"
    current = _digest(path.read_bytes()) if path.is_file() else ""
    if current not in {write["after"] for write in writes}:
        # A write that a power cut kept from happening left the old content in place.
        return "restored" if current == before["digest"] else "edited"
    if "copy" in before:
        with whole_file(path) as part:
            shutil.copy2(log_folder / before["copy"], part)
    else:
        write_bytes(path, base64.b64decode(before["bytes"]))
    return "restored"


def _keep(path: Path, log_folder: Path) -> dict[str, str] | None:
    """Return the content that is about to be replaced, or where a copy of it lies."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest = _digest(content)
    if len(content) <= INLINE_BYTES:
        return {"digest": digest, "bytes": base64.b64encode(content).decode("ascii")}
    copy = f"{digest[:16]}-{path.name}"
    if not (log_folder / copy).is_file():
        write_bytes(log_folder / copy, content)
    return {"digest": digest, "copy": copy}


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def image_stamp(path: Path) -> tuple[int, int]:
    """Return size and time of an image, which change when it is edited."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
