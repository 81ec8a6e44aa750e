"""Single files made from a toy model, with the changes that files in the wild have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from sdft.events import ignore
from sdft.jobs.convert import run_convert

State = dict[str, Tensor]


def single_file(toy: Path, path: Path, **options: object) -> Path:
    """Convert a toy folder to one file."""
    run_convert(toy, path, emit=ignore, **options)  # type: ignore[arg-type]
    return path


def state_of(toy: Path, tmp_path: Path) -> State:
    """Return the toy's tensors by original names."""
    return load_file(single_file(toy, tmp_path / "whole.safetensors"))


def changed(
    toy: Path,
    path: Path,
    change: Callable[[State], State],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the toy as one file after `change`; without metadata unless it is given."""
    state = state_of(toy, path.parent)
    (path.parent / "whole.safetensors").unlink()
    contiguous = {name: tensor.contiguous() for name, tensor in change(state).items()}
    save_file(contiguous, path, metadata=dict(metadata or {}))
    return path


def renamed(old: str, new: str) -> Callable[[State], State]:
    """Replace a prefix."""

    def change(state: State) -> State:
        return {
            new + name.removeprefix(old) if name.startswith(old) else name: tensor
            for name, tensor in state.items()
        }

    return change


def without(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {n: t for n, t in state.items() if not n.startswith(prefixes)}
