"""Writes states: first copies in main memory, then files that were read back before they count.

In: what a run is at one moment. Out: a state folder, whole or absent.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from sdft.errors import DataError, EnvironmentFault
from sdft.files import require_space, whole_folder, write_bytes
from sdft.formats.lazy import BLOCK_BYTES
from sdft.formats.safetensors_header import write_header
from sdft.models.checkpoint import DTYPE_NAMES
from sdft.rundir import KEPT, MANIFEST
from sdft.train.plain_tensors import on_cpu, taken_apart, tensor_bytes
from sdft.train.state import OPTIMIZER, PROGRESS, Identity, Progress, damage


@dataclass(frozen=True, slots=True, kw_only=True)
class StateContent:
    """What a run is at one moment. Until `copied` its tensors are those that are trained on."""

    modules: Mapping[str, Mapping[str, Tensor]]
    """File stem (`unet`, `text_encoder`, `ema`) to its tensors."""
    optimizer: Mapping[str, Any]
    progress: Progress
    identity: Identity
    events_bytes: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    is_copy: bool = False
    """Whether the tensors are its own, so that training does not change them."""

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all tensors."""
        return tensor_bytes(dict(self.modules)) + tensor_bytes(self.optimizer)

    def copied(self) -> StateContent:
        """Return the same with tensors of its own in main memory."""
        return self if self.is_copy else self.copied_by(on_cpu)

    def copied_by(self, copy: Callable[[Any], Any]) -> StateContent:
        """Return the same with the copies that `copy` makes of tensors in mappings."""
        return replace(
            self, modules=copy(self.modules), optimizer=copy(self.optimizer), is_copy=True
        )


def write_state(folder: Path, content: StateContent, *, kept: bool = False) -> int:
    """Write a state and read it back; return its size in bytes.

    Raises: EnvironmentFault where the disk has no room for it, the folder cannot be written, or
        what comes back is not what was written; DataError where a weight is no number, so that
        no good state makes room for a useless one.
    """
    require_finite(content.modules, what_for=f"the state of step {content.progress.step}")
    require_space(folder.parent, content.num_bytes, "saving the state")
    tensors, structure = _apart(content.optimizer)
    record = {
        "progress": asdict(content.progress),
        "identity": dict(content.identity.parts),
        "events_bytes": content.events_bytes,
        "settings": dict(content.settings),
        "machine": dict(content.machine),
        "extras": dict(content.extras),
    }
    with whole_folder(folder) as part:
        manifest = {
            **{
                f"{stem}.safetensors": _write_tensors(part / f"{stem}.safetensors", module)
                for stem, module in (content.modules | {OPTIMIZER: tensors}).items()  # type: ignore[operator]
            },
            f"{OPTIMIZER}.json": _write_json(part / f"{OPTIMIZER}.json", structure),
            PROGRESS: _write_json(part / PROGRESS, record),
        }
        write_bytes(part / MANIFEST, json.dumps(manifest, indent=2).encode("ascii"))
        if kept:
            (part / KEPT).touch()
        problem = damage(part)
        if problem:
            raise EnvironmentFault(
                what=f"the disk does not give back what was written: {problem}",
                where=str(folder),
                fix="check the disk; the state before this one is still there",
            )
    return sum(size for size, _ in manifest.values())


def require_finite(modules: Mapping[str, Mapping[str, Tensor]], *, what_for: str) -> None:
    """Check that every weight is a number.

    Raises: DataError that names the first one that is not.
    """
    for stem, tensors in modules.items():
        for name, tensor in tensors.items():
            if not is_finite(tensor):
                raise DataError(
                    what=f"{what_for} would hold values that are no numbers: {stem}, {name}",
                    fix="go on from the last state with a lower learning_rate, or with"
                    " mixed_precision bf16 or no",
                )


def _apart(optimizer: Mapping[str, Any]) -> tuple[dict[str, Tensor], Any]:
    try:
        return taken_apart(optimizer)
    except TypeError as error:
        raise DataError(
            what=f"the state of this optimizer cannot be saved: {error}", where="optimizer_type"
        ) from error


def is_finite(tensor: Tensor) -> bool:
    """Tell whether every element is a number."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    flat = tensor.detach()
    # One sum tells of nearly all; only where large numbers overflow it, each element is looked at.
    return bool(torch.isfinite(flat.sum(dtype=torch.float32))) or bool(torch.isfinite(flat).all())


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """Write a .safetensors file straight from memory, so that other threads can work meanwhile."""
    # Larger elements come first, so that each tensor begins at a multiple of its own.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    ordered = {name: tensors[name].detach() for name in names}
    shapes = {name: (DTYPE_NAMES[one.dtype], tuple(one.shape)) for name, one in ordered.items()}

    def fill(file: IO[bytes]) -> None:
        file.write(write_header(shapes, {"format": "pt"}))
        for tensor in ordered.values():
            raw = tensor.to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data
            for start in range(0, len(raw), BLOCK_BYTES):
                file.write(raw[start : start + BLOCK_BYTES])

    return _write(path, fill)


def _write_json(path: Path, value: Any) -> tuple[int, str]:
    return _write(path, lambda file: file.write(json.dumps(value).encode("ascii")))


def _write(path: Path, fill: Callable[[IO[bytes]], object]) -> tuple[int, str]:
    """Write a file; return its size and the digest of what was meant, not of what is there."""
    with path.open("wb") as file:
        hashed = _Hashed(file)
        fill(cast(IO[bytes], hashed))
    return hashed.num_bytes, hashed.digest.hexdigest()


class _Hashed(io.RawIOBase):
    """Passes on what is written, and counts and hashes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.num_bytes = 0
        self.digest = blake2b(digest_size=16)

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self._file.write(block)
        self.digest.update(block)
        self.num_bytes += len(block)
        return len(block)
