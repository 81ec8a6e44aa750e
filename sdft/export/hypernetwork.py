"""Writes a hypernetwork: the AUTOMATIC1111 web UI's `.pt`, or `.safetensors`.

In: fields and tensors, in memory or in another file. Out: a file, whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdft.export.single_file import in_precision
from sdft.files import require_space, whole_file
from sdft.formats.lazy import LazyTensor
from sdft.formats.safetensors_write import write_safetensors
from sdft.formats.tensor_file import SAFETENSORS
from sdft.formats.zip_pickle_write import write_pickled_value
from sdft.models.hypernetwork_file import (
    FIELDS_KEY,
    PT,
    SIDES,
    HypernetworkFields,
    paired_tensors,
)
from sdft.models.single_file import METADATA_SCALAR


def write_hypernetwork(
    path: Path,
    tensors: Mapping[str, LazyTensor],
    fields: HypernetworkFields,
    *,
    form: str,
    save_precision: str | None,
    metadata: Mapping[str, str],
    with_hash: bool = False,
    on_overflow: Callable[[str], None] = lambda _: None,
) -> int:
    """Write a hypernetwork; return the file's size in bytes.

    `tensors` go by the names of the .safetensors form, `<width>.k.linear.0.weight`. `form` is `pt`
    or `safetensors`, `save_precision` as for a model. `on_overflow` gets the name of each tensor
    with a number that is too large for fp16.
    Raises: EnvironmentFault where the disk is full or the place cannot be written.
    """
    assert form in (PT, SAFETENSORS), form
    cast = {
        name: in_precision(name, tensor, save_precision, on_overflow)
        for name, tensor in tensors.items()
    }
    require_space(path.parent, sum(one.num_bytes for one in cast.values()), "this hypernetwork")
    with whole_file(path) as part, part.open("wb") as file:
        if form == SAFETENSORS:
            head = {"format": "pt", **metadata, FIELDS_KEY: json.dumps(fields.as_plain())}
            write_safetensors(file, cast, head, with_hash=with_hash)
        else:
            write_pickled_value(file, _as_web_ui(cast, fields, metadata))
    return path.stat().st_size


def _as_web_ui(
    tensors: Mapping[str, LazyTensor], fields: HypernetworkFields, metadata: Mapping[str, str]
) -> dict[str | int, Any]:
    """Return the table that the web UI pickles: a pair for each width, then the fields."""
    table: dict[str | int, Any] = {
        width: tuple(pair[side] for side in SIDES)
        for width, pair in paired_tensors(tensors).items()
    }
    table.update(fields.as_plain().items())
    if metadata:
        # A .pt has no header for it; the web UI passes over a key that it does not know.
        table[METADATA_SCALAR] = json.dumps(dict(metadata), sort_keys=True)
    return table
