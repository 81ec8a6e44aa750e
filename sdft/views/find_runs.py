"""Finds run folders, the newest first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from sdft.errors import UserError
from sdft.rundir import RunDir

DEPTH = 3
"""How many folders below the given one are looked through."""

MAX_FOLDERS = 5_000
"""A search in a folder with more than this below it stops there, so that it never hangs."""


def is_run(path: Path) -> bool:
    """Tell whether a folder is one that a run writes."""
    run = RunDir(path)
    return run.events_file.is_file() or run.status_file.is_file()


def runs_below(folder: Path) -> list[RunDir]:
    """Return the runs in a folder and a few levels below it, the one written last first."""
    found = [RunDir(path) for path in itertools.islice(_folders(folder, DEPTH), MAX_FOLDERS)]
    runs = [run for run in found if is_run(run.path)]
    return sorted(runs, key=_written_s, reverse=True)


def run_at(path: Path) -> RunDir:
    """Return the run that a path names: its folder, its name without `.run`, or the newest below.

    Raises: UserError.
    """
    if path.suffix == ".run" and path.is_dir():
        # Maybe with nothing in it yet: a run that is about to begin can be waited for.
        return RunDir(path)
    for candidate in (path, path.with_name(f"{path.name}.run")):
        if is_run(candidate):
            return RunDir(candidate)
    runs = runs_below(path) if path.is_dir() else []
    if not runs:
        what = "no run in here" if path.is_dir() else "no such run"
        fix = "give a folder that ends in .run"
        raise UserError(what=what, where=str(path), fix=fix, key="no_run")
    return runs[0]


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inner = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError:
        return
    yield from inner
    if depth > 1:
        for path in inner:
            # A run's own folders hold no other run, but maybe thousands of pictures.
            if not is_run(path) and not path.is_symlink():
                yield from _folders(path, depth - 1)


def _written_s(run: RunDir) -> float:
    times = []
    for file in (run.events_file, run.status_file):
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)
