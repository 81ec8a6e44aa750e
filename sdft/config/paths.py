"""What a path in a settings file or on a command line means, by the rules of Windows or of Unix.

In: the text, the folders that it may start from. Out: an absolute path. Needs no disk but to ask
whether something exists, and no Windows: the rules are those of the class that the folders have.
"""

from __future__ import annotations

import ntpath
import posixpath
from collections.abc import Callable
from pathlib import Path, PurePath, PureWindowsPath
from typing import TypeVar

from sdft.errors import Problem
from sdft.windows import is_device_name

P = TypeVar("P", bound=PurePath)


def meant_path(
    text: str, cwd: P, folder: P | None, *, home: Callable[[], P], exists: Callable[[P], bool]
) -> P:
    """Return the absolute path: from the current folder if it exists there, else from `folder`.

    A path that exists in neither place is taken from the current folder. `~/` is `home`, unless
    there is a folder of that name.

    Raises: RuntimeError where `home` has to be asked and knows nothing.
    """
    begins_at_home = text.startswith(("~/", "~\\") if _is_windows(cwd) else "~/")
    if begins_at_home and not exists(cwd / text):
        return _plain(home() / text[2:].lstrip("/\\"))
    if folder is not None and not exists(cwd / text) and exists(folder / text):
        return _plain(folder / text)
    return _plain(cwd / text)


def windows_problem(name: str, text: str, where: str) -> Problem | None:
    r"""Return what Windows would take otherwise than the setting `name` says.

    `D:cats` is no path from the root of D: but from wherever that drive was left, and a part such
    as `aux` is a device in every folder. Source: "Naming Files, Paths, and Namespaces" in the
    documentation of Win32.
    """
    path = PureWindowsPath(text)
    drive = path.drive
    if drive and not path.root:
        return Problem(
            f"{name} starts from wherever drive {drive} was left, not from its root: {text}",
            where,
            f"write {drive}\\{text[len(drive) :]}",
            "drive_without_root",
            {"name": name, "drive": drive, "path": text},
        )
    for part in path.parts[1:] if path.anchor else path.parts:
        if is_device_name(part):
            return Problem(
                f"{name} has a part that Windows keeps for a device: {part}",
                where,
                "name the folder or file otherwise",
                "device_in_path",
                {"name": name, "part": part},
            )
    return None


def advice_on_windows_path(path: Path) -> str:
    """Return what to do about a path that was written for Windows, on a system that is none."""
    if isinstance(path, PureWindowsPath) or "\\" not in str(path):
        return ""
    with_slashes = Path(str(path).replace("\\", "/"))
    if with_slashes.exists():
        return f"folders are separated by / here: '{with_slashes}'"
    written = path.name if path.name[1:3] == ":\\" or path.name.startswith("\\\\") else ""
    return f"{written} is a path of Windows; write where it is on this system" if written else ""


def _is_windows(path: PurePath) -> bool:
    return isinstance(path, PureWindowsPath)


def _plain(path: P) -> P:
    """Return the path without `.` and `..`."""
    rules = ntpath if _is_windows(path) else posixpath
    return type(path)(rules.normpath(str(path)))
