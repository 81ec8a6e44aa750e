"""Finds and fetches states that lie in an object store.

In: URLs. Out: what is there, and whole files and folders on this machine's disk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdft.dataset.drivers import entries, opened, with_retries
from sdft.errors import UserError
from sdft.events import Emit, Notice
from sdft.files import remove, stays_within, whole_file, whole_folder
from sdft.rundir import MANIFEST, is_state_name


def listed(url: str, below: str, note: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Return the objects below a prefix, by their names from `url`.

    Raises: OSError.
    """
    system, prefix = opened(url)
    place = f"{prefix.rstrip('/')}/{below}".rstrip("/")
    found = with_retries(lambda: entries(system, place, recursive=True), url, note)
    start = prefix.rstrip("/") + "/"
    return {
        name.removeprefix(start): facts
        for name, facts in found.items()
        if facts.get("type") != "directory" and stays_within(name.removeprefix(start))
    }


def states_in(names: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the states among a run's objects: by their names, their files."""
    states: dict[str, dict[str, Any]] = {}
    for name, facts in names.items():
        parts = name.split("/")
        if len(parts) == 3 and parts[0] == "states":
            states.setdefault(parts[1], {})[parts[2]] = facts
    return {name: files for name, files in states.items() if is_state_name(name)}


def fetch_state(url: str, folder: Path, note: Callable[[str], None]) -> str:
    """Bring a state here; return what is wrong with it there, or an empty text.

    Raises: OSError; EnvironmentFault where it cannot be written.
    """
    files = listed(url, "", note)
    if MANIFEST not in files:
        return f"{MANIFEST} is missing"
    with whole_folder(folder) as part:
        for name in files:
            if "/" not in name:
                fetch_file(f"{url}/{name}", part / name, note)
    return ""


def fetch_named_state(url: str, folder: Path, emit: Emit) -> Path:
    """Return the folder of a state of which a person gave the URL.

    Raises: UserError where there is none; EnvironmentFault.
    """
    if folder.exists():
        remove(folder)

    def note(text: str) -> None:
        emit(Notice(severity="warning", topic="outputs", message=text))

    try:
        problem = fetch_state(url, folder, note)
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise UserError(
            what=f"no such state: {problem}",
            where=f"--resume {url}",
            fix="name a folder under <run>/states, or use --resume auto",
            key="no_such_state",
        )
    return folder


def fetch_file(url: str, target: Path, note: Callable[[str], None]) -> None:
    """Bring an object here, whole or not at all.

    Raises: OSError; EnvironmentFault where it cannot be written.
    """
    system, name = opened(url, writes=True)
    with whole_file(target) as part:
        with_retries(lambda: system.get_file(name, str(part)), url, note)
