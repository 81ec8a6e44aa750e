"""The header of a safetensors file, believed only where the file bears it out.

Layout: 8 bytes with the header's length, the header as JSON, then all tensors without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft.errors import DataError
from sdft.formats.tensor_info import DTYPE_BYTES, TensorInfo

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""
LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsHeader:
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    """Bytes from the start of the file to the first tensor."""


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check a header; no tensor is read.

    Raises: DataError where the file is no safetensors file, is cut off, or where the header does
        not fit the file; OSError where it cannot be read.
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if file_bytes < LENGTH_BYTES or length > MAX_HEADER_BYTES:
            raise DataError(what="not a safetensors file", where=str(path))
        if LENGTH_BYTES + length > file_bytes:
            raise _cut_off(path, LENGTH_BYTES + length, file_bytes)
        raw = file.read(length)
    data_start = LENGTH_BYTES + length
    entries = _parse(path, raw)
    metadata = _metadata(path, entries.pop("__metadata__", {}))
    tensors = {name: _tensor(path, name, entry, data_start) for name, entry in entries.items()}
    _check_layout(path, tensors, data_start, file_bytes)
    return SafetensorsHeader(tensors=tensors, metadata=metadata, data_start=data_start)


def write_header(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """Return the bytes in front of the tensors; these follow in the order of `tensors`.

    In: (dtype, shape) of each tensor.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * DTYPE_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    # The tensors begin at a multiple of 8, so that a mapped file can be read in place.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) != len(pairs):
            raise ValueError("a name stands there twice")
        return record

    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=without_doubles)
    except (ValueError, RecursionError) as error:
        raise _lies(path, f"it is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise _lies(path, "it is not a JSON object")
    return entries


def _metadata(path: Path, value: Any) -> dict[str, str]:
    # Some programs write null for no metadata.
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _lies(path, "its metadata is not a table of texts")
    return value


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict):
        raise _lies(path, f'"{name}" has no description')
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _lies(path, f'"{name}" has an unknown dtype, {dtype!r}')
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _lies(path, f'"{name}" has no proper shape or place')
    begin, end = offsets
    num_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - begin != num_bytes:
        raise _lies(path, f'"{name}" takes {num_bytes} bytes and is given {end - begin}')
    return TensorInfo(
        dtype=dtype, shape=tuple(shape), offset=data_start + begin, num_bytes=num_bytes
    )


def _are_sizes(value: Any) -> bool:
    # bool is an int to Python, and true is no size.
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_layout(
    path: Path, tensors: dict[str, TensorInfo], data_start: int, file_bytes: int
) -> None:
    """Tensors must follow one another without gaps and end where the file ends."""
    expected = data_start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].num_bytes)):
        if info.offset != expected:
            raise _lies(path, f'"{name}" overlaps another tensor or leaves a gap')
        expected += info.num_bytes
    if expected > file_bytes:
        raise _cut_off(path, expected, file_bytes)
    if expected < file_bytes:
        raise _lies(path, f"{file_bytes - expected} bytes at the end belong to no tensor")


def _cut_off(path: Path, needed: int, present: int) -> DataError:
    return DataError(
        what=f"cut off: it says that it has {needed} bytes, {present} are there",
        where=str(path),
        fix="download or copy it again",
    )


def _lies(path: Path, why: str) -> DataError:
    return DataError(
        what=f"the header of this safetensors file is wrong: {why}",
        where=str(path),
        fix="download or copy it again; a file that is still wrong was written by a faulty program",
    )
