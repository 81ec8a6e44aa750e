"""Nested values with tensors in them, as one safetensors file and one JSON text, and back.

In: what an optimizer's `state_dict` gives: dicts, lists, tuples, numbers, texts, tensors. Out: the
tensors by name, and a JSON value that says where each belongs. Nothing that could run is stored.
A tensor that stands in several places is stored once and comes back as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdft.errors import DataError

MAX_DEPTH = 32
"""Deeper values are refused: no optimizer has them, and reading them would exhaust the stack."""

_PLAIN = (bool, int, float, str, type(None))


def taken_apart(value: Any) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a value by new names, and the rest as a JSON value.

    Raises: TypeError for a value that is none of these kinds.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}

    def apart(part: Any) -> Any:
        if isinstance(part, Tensor):
            if id(part) not in names:
                names[id(part)] = f"t{len(tensors)}"
                tensors[names[id(part)]] = part
            return {"tensor": names[id(part)]}
        if isinstance(part, Mapping):
            return {"dict": [[_key(key), apart(entry)] for key, entry in part.items()]}
        if isinstance(part, list | tuple):
            kind = "list" if isinstance(part, list) else "tuple"
            return {kind: [apart(entry) for entry in part]}
        if isinstance(part, torch.dtype):
            return {"dtype": str(part).removeprefix("torch.")}
        if isinstance(part, np.generic):
            return part.item()
        if isinstance(part, _PLAIN):
            return part
        raise TypeError(f"a state cannot hold {type(part).__name__}")

    return tensors, apart(value)


def put_together(tensors: Mapping[str, Tensor], value: Any, *, where: str) -> Any:
    """Undo `taken_apart`.

    Raises: DataError for anything that it does not write.
    """

    def fault(what: str) -> DataError:
        return DataError(what=f"not an optimizer's state: {what}", where=where)

    def together(part: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise fault(f"nested deeper than {MAX_DEPTH}")
        if isinstance(part, _PLAIN):
            return part
        if not isinstance(part, dict) or len(part) != 1:
            raise fault("an entry of no known kind")
        ((kind, held),) = part.items()
        maker = makers.get(kind)
        if maker is None:
            raise fault(f"an entry of the kind {kind[:40]!r}")
        try:
            return maker(held, depth + 1)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise fault(f"a {kind} that cannot be read ({error})") from error

    makers: dict[str, Callable[[Any, int], Any]] = {
        "tensor": lambda held, _: tensors[held],
        "dict": lambda held, depth: {_key(key): together(one, depth) for key, one in held},
        "list": lambda held, depth: [together(one, depth) for one in held],
        "tuple": lambda held, depth: tuple(together(one, depth) for one in held),
        "dtype": lambda held, _: _dtype(held),
    }
    return together(value, 0)


def on_cpu(value: Any) -> Any:
    """Return the same value with copies of its tensors in main memory."""
    return with_each_tensor(value, lambda tensor: tensor.detach().to("cpu", copy=True))


def with_each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the same value with what `change` makes of each of its tensors.

    A tensor that stands in several places is changed once.
    """
    changed: dict[int, Tensor] = {}

    def walked(part: Any) -> Any:
        if isinstance(part, Tensor):
            if id(part) not in changed:
                changed[id(part)] = change(part)
            return changed[id(part)]
        if isinstance(part, Mapping):
            return {key: walked(entry) for key, entry in part.items()}
        if isinstance(part, list | tuple):
            return type(part)(walked(entry) for entry in part)
        return part

    return walked(value)


def tensor_bytes(value: Any) -> int:
    """Return the bytes of all tensors inside dicts, lists and tuples, each counted once."""
    seen: dict[int, int] = {}

    def count(part: Any) -> None:
        if isinstance(part, Tensor):
            seen[id(part)] = part.numel() * part.element_size()
        elif isinstance(part, Mapping):
            count(list(part.values()))
        elif isinstance(part, list | tuple):
            for entry in part:
                count(entry)

    count(value)
    return sum(seen.values())


def _key(key: Any) -> str | int:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return key
    raise TypeError(f"a key that is a {type(key).__name__}")


def _dtype(name: Any) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"no dtype {name!r}")
    return found
