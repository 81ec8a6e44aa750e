"""States: all that a run needs to go on as if it had never stopped.

    <run>/states/step00000100/
        progress.json       step, place in the data, what the run is made of
        unet.safetensors, text_encoder.safetensors (where trained), ema.safetensors
        optimizer.pt        tensors and plain values only
        manifest.json       size and BLAKE2b digest of each of the others

No random generator is stored: every random value has an address (see streams.py).
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdft.errors import DataError
from sdft.files import require_space, whole_folder, write_json

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
OPTIMIZER = "optimizer.pt"
_READ_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    """Updates done."""
    epoch: int = 1
    """The epoch that the next update belongs to, from 1."""
    steps_into_epoch: int = 0
    epoch_loss_sum: float = 0.0
    """Sum of the losses of the items seen in this epoch."""
    epoch_items: int = 0
    last_epoch_loss: float | None = None
    """Mean loss of the last whole epoch."""


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


def state_name(step: int) -> str:
    return f"step{step:08d}"


def save_state(
    folder: Path,
    *,
    modules: Mapping[str, Mapping[str, Tensor]],
    optimizer: Mapping[str, Any],
    progress: Progress,
    identity: Identity,
    events_bytes: int,
) -> int:
    """Write a state; return its size in bytes.

    `modules` maps a file stem (`unet`, `text_encoder`, `ema`) to its tensors.

    Raises: EnvironmentFault where the disk has no room for it or the folder cannot be written.
    """
    weights_bytes = sum(
        tensor.numel() * tensor.element_size()
        for tensors in modules.values()
        for tensor in tensors.values()
    )
    require_space(folder.parent, weights_bytes + tensor_bytes(optimizer), "saving the state")
    with whole_folder(folder) as part:
        for stem, tensors in modules.items():
            held = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
            save_file(held, part / f"{stem}.safetensors")
        torch.save(_on_cpu(optimizer), part / OPTIMIZER)
        write_json(
            part / PROGRESS,
            {
                "progress": asdict(progress),
                "identity": dict(identity.parts),
                "events_bytes": events_bytes,
            },
        )
        files = sorted(path for path in part.iterdir())
        manifest = {path.name: (path.stat().st_size, _digest(path)) for path in files}
        write_json(part / MANIFEST, manifest)
    return sum(size for size, _ in manifest.values())


def read_state(folder: Path) -> SavedState:
    """Check a state against its manifest and return what it holds besides tensors.

    Raises: DataError that names what is missing or damaged.
    """
    problem = damage(folder)
    if problem:
        raise DataError(what=f"this state cannot be used: {problem}", where=str(folder))
    record = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    return SavedState(
        path=folder,
        progress=Progress(**record["progress"]),
        identity=Identity(parts=record["identity"]),
        events_bytes=record["events_bytes"],
    )


def damage(folder: Path) -> str:
    """Return what is wrong with a state folder, or an empty string."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        entries = {str(name): (int(size), str(digest)) for name, (size, digest) in manifest.items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    for name, (size, digest) in entries.items():
        path = folder / Path(name).name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _digest(path) != digest:
            return f"{name} has been altered"
    if not {PROGRESS, OPTIMIZER} <= entries.keys():
        return f"{PROGRESS} or {OPTIMIZER} is missing"
    return ""


def read_module(folder: Path, stem: str) -> dict[str, Tensor]:
    """Return the tensors of one module, on the CPU."""
    tensors: dict[str, Tensor] = load_file(folder / f"{stem}.safetensors")
    return tensors


def read_optimizer(folder: Path) -> dict[str, Any]:
    """Return the optimizer's state; only tensors and plain values are let through.

    Raises: DataError where the file holds anything else.
    """
    try:
        with warnings.catch_warnings():
            # torch warns of pickles that it did not write; those are refused here.
            warnings.simplefilter("ignore", UserWarning)
            state: dict[str, Any] = torch.load(
                folder / OPTIMIZER, map_location="cpu", weights_only=True
            )
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DataError(
            what=f"not an optimizer's state: {error}", where=str(folder / OPTIMIZER)
        ) from error
    return state


def newest_state(states: Path) -> tuple[SavedState | None, list[tuple[Path, str]]]:
    """Return the newest whole state of a run, and those passed over with the reason."""
    passed_over: list[tuple[Path, str]] = []
    for folder in sorted(finished_states(states), reverse=True):
        problem = damage(folder)
        if not problem:
            return read_state(folder), passed_over
        passed_over.append((folder, problem))
    return None, passed_over


def finished_states(states: Path) -> list[Path]:
    """Return the state folders of a run, oldest first; unfinished ones are left out."""
    return sorted(path for path in states.glob("step*") if path.name[4:].isdigit())


def tensor_bytes(value: Any) -> int:
    """Return the bytes of all tensors inside dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(tensor_bytes(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(tensor_bytes(part) for part in value)
    return 0


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(part) for part in value)
    return value


def _digest(path: Path) -> str:
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_READ_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
