"""A whole run folder, read at once: for reports, lists and comparisons.

In: a run folder, whole or damaged, of this machine or another. Out: a RunRecord. Whatever is
missing or cannot be read is left empty; nothing in the folder is trusted.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft.events import SampleSaved
from sdft.rundir import RunDir
from sdft.views.event_file import EventFile
from sdft.views.fates import Fates, read_fates
from sdft.views.history import SLICE_BYTES, History, Snapshot
from sdft.views.run_state import RunState, look, run_state

MAX_FILE_BYTES = 4 << 20
"""A config or environment larger than this is none that a run wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything a run folder says."""

    run: RunDir
    snapshot: Snapshot
    state: RunState
    settings: Mapping[str, Any]
    """`learning_rate`, `datasets.0.resolution`, ... to values; lists stay lists."""
    environment: Mapping[str, Any]
    """The same of environment.json."""
    fates: Fates | None

    @property
    def name(self) -> str:
        return self.run.path.name.removesuffix(".run")


def read_run(run: RunDir) -> RunRecord:
    """Read all that a run folder holds but its pictures and states."""
    file, history = EventFile(run.events_file), History()
    while lines := file.next_lines(SLICE_BYTES):
        history.take(lines)
    snapshot = history.snapshot(1.0)
    return RunRecord(
        run=run,
        snapshot=snapshot,
        state=run_state(snapshot.summary, look(run)),
        settings=flat(_toml(run.config_file)),
        environment=flat(_json(run.environment_file)),
        fates=read_fates(run.fates_file),
    )


def sample_file(record: RunRecord, sample: SampleSaved) -> Path | None:
    """Return where a sample picture lies now, or None where it is gone.

    A folder that was moved or renamed still has its pictures; nothing outside of it is read.
    """
    # The name may have been written on another system.
    name = sample.path.replace("\\", "/").rpartition("/")[2]
    path = record.run.samples / name
    return path if name not in ("", ".", "..") and path.is_file() else None


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, with dotted names; lists of plain values stay lists."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for number, part in enumerate(value):
                found |= flat(part, f"{name}.{number}.")
        else:
            found[name] = value
    return found


def shown(value: object) -> str:
    """Return a value as a person reads it."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}" if math.isfinite(value) else str(value)
        case list() | tuple():
            return ", ".join(shown(part) for part in value)
        case _:
            return str(value)


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except (ValueError, RecursionError):
        return {}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
