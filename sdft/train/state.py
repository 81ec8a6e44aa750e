"""States: all that a run needs to go on as if it had never stopped.

    <run>/states/step00000100/
        progress.json           step, place in the data, what the run is made of
        unet.safetensors, text_encoder.safetensors (where trained), ema.safetensors
        optimizer.safetensors   its tensors, and
        optimizer.json          where each belongs; no pickle anywhere
        manifest.json           size and BLAKE2b digest of each of the others
        kept                    there if the state was asked for and is not the rolling one

No random generator is stored: every random value has an address (see streams.py).
This file knows what a state is and reads one; `state_write` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import Tensor

from sdft.errors import DataError
from sdft.files import PART_MARK
from sdft.models.checkpoint import open_tensors, read
from sdft.rundir import KEPT, MANIFEST, is_state_name, state_step
from sdft.train.plain_tensors import put_together

PROGRESS = "progress.json"
OPTIMIZER = "optimizer"
_READ_CHUNK_BYTES = 1 << 24
_MAX_JSON_BYTES = 256 << 20
"""A larger file is no part of a state; reading it could exhaust the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    """Updates done, those that were left out included."""
    epoch: int = 1
    """The epoch that the next update belongs to, from 1."""
    steps_into_epoch: int = 0
    epoch_loss_sum: float = 0.0
    """Sum of the losses of the items seen in this epoch."""
    epoch_items: int = 0
    last_epoch_loss: float | None = None
    """Mean loss of the last whole epoch."""
    recent_losses: tuple[float, ...] = ()
    """Of the last steps, to tell a spike by."""
    micro_batches: tuple[int, ...] = ()
    """Items a forward pass, one number a dataset, where a lack of memory has changed them."""
    steps_left_out: int = 0
    """Steps whose update was not made, because its figures were no numbers."""
    bad_steps_in_row: int = 0
    num_rollbacks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a run is made of; on resume each of these must be the same."""

    parts: Mapping[str, str] = field(default_factory=dict)
    """Name to digest or value: `settings`, `dataset`, `model`, `effective_batch`, ..."""

    def differences(self, other: Identity) -> list[str]:
        """Return the names whose values differ."""
        names = [*self.parts, *(name for name in other.parts if name not in self.parts)]
        return [name for name in names if self.parts.get(name) != other.parts.get(name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """What a state folder holds besides tensors."""

    path: Path
    progress: Progress
    identity: Identity
    events_bytes: int
    """How long `events.jsonl` was; a resumed run goes on writing there."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings that decide the result, by dotted name."""
    machine: Mapping[str, str] = field(default_factory=dict)
    """What the last bits depend on besides: device, threads, versions."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Plain values of other parts of the run, such as the history of its validation."""


def read_state(folder: Path) -> SavedState:
    """Check a state against its manifest and return what it holds besides tensors.

    Raises: DataError that names what is missing or damaged.
    """
    problem = damage(folder)
    if problem:
        raise DataError(
            what=problem,
            where=str(folder),
            fix="use another state, or --resume auto, which takes the newest whole one",
        )
    try:
        record = _json(folder / PROGRESS)
        return SavedState(
            path=folder,
            progress=_progress(record["progress"]),
            identity=Identity(parts={str(k): str(v) for k, v in record["identity"].items()}),
            events_bytes=int(record["events_bytes"]),
            settings=dict(record["settings"]),
            machine={str(k): str(v) for k, v in record["machine"].items()},
            extras=dict(record["extras"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            what=f"not the progress of a run, or that of another version of sdft ({error})",
            where=str(folder / PROGRESS),
        ) from error


def damage(folder: Path) -> str:
    """Return what is wrong with a state folder, or an empty string. Reads all of it."""
    try:
        manifest = _json(folder / MANIFEST)
        entries = {str(name): (int(size), str(digest)) for name, (size, digest) in manifest.items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    for name, (size, digest) in entries.items():
        if name != Path(name).name:
            return f"{MANIFEST} names a file outside of the state: {name!r}"
        path = folder / name
        try:
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if _digest(path) != digest:
                return f"{name} has been altered"
        except OSError as error:
            return f"{name} cannot be read ({error})"
    needed = {PROGRESS, f"{OPTIMIZER}.json", f"{OPTIMIZER}.safetensors"}
    missing = sorted(needed - entries.keys())
    return f"{missing[0]} is missing" if missing else ""


def size_bytes(folder: Path) -> int:
    """Return how much a state takes on the disk, as far as it is there."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def read_module(folder: Path, stem: str) -> dict[str, Tensor]:
    """Return the tensors of one module, on the CPU.

    Raises: DataError where the state has no such file or it is none of tensors.
    """
    path = folder / f"{stem}.safetensors"
    if not path.is_file():
        raise DataError(what=f"this state holds no {stem}", where=str(folder))
    return {name: read(tensor) for name, tensor in open_tensors(path).all_lazy().items()}


def read_optimizer(folder: Path) -> dict[str, Any]:
    """Return the optimizer's state, on the CPU.

    Raises: DataError where the files hold anything else.
    """
    where = folder / f"{OPTIMIZER}.json"
    try:
        value = _json(where)
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(what=f"not an optimizer's state: {error}", where=str(where)) from error
    state = put_together(read_module(folder, OPTIMIZER), value, where=str(where))
    if not isinstance(state, dict):
        raise DataError(what="not an optimizer's state: no dictionary", where=str(where))
    return state


def newest_state(states: Path) -> tuple[SavedState | None, list[tuple[Path, str]]]:
    """Return the newest whole state of a run, and those passed over with the reason."""
    passed_over: list[tuple[Path, str]] = []
    for folder in sorted(finished_states(states), reverse=True):
        try:
            return read_state(folder), passed_over
        except DataError as error:
            passed_over.append((folder, error.problems[0].what))
    return None, passed_over


def finished_states(states: Path) -> list[Path]:
    """Return the state folders of a run, oldest first; unfinished ones are left out."""
    found = (path for path in states.glob("step*") if PART_MARK not in path.name)
    return sorted(path for path in found if is_state_name(path.name))


def step_of(folder: Path) -> int:
    """Return the number of updates done, from a state's name."""
    return state_step(folder.name)


def is_kept(folder: Path) -> bool:
    """Tell whether a state was asked for, so that no rolling one takes its place."""
    return (folder / KEPT).exists()


def _progress(record: Mapping[str, Any]) -> Progress:
    """Read what `asdict` gave, each value of its kind.

    Raises: ValueError, TypeError, KeyError.
    """
    values: dict[str, Any] = {}
    for known in fields(Progress):
        value = record[known.name]
        if known.name in ("recent_losses", "micro_batches"):
            kind = float if known.name == "recent_losses" else int
            values[known.name] = tuple(kind(one) for one in value)
        elif value is not None:
            values[known.name] = float(value) if "loss" in known.name else int(value)
        elif known.name != "last_epoch_loss":
            raise ValueError(f"{known.name} is missing")
    found = Progress(**values)
    if found.step < 0 or found.epoch < 1 or found.steps_into_epoch < 0:
        raise ValueError("a place before the start of the run")
    return found


def _json(path: Path) -> Any:
    num_bytes = path.stat().st_size
    if num_bytes > _MAX_JSON_BYTES:
        raise ValueError(f"{num_bytes} bytes are too many")
    return json.loads(path.read_text(encoding="utf-8"))


def _digest(path: Path) -> str:
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_READ_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
