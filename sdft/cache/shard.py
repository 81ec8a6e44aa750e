"""One shard: many tensors in one safetensors file that describes and checks itself.

In: arrays by key. Out: a file; and back. No torch: bfloat16 is written from float32 and read into
float32, which holds every bfloat16 value exactly.

The file's own metadata holds the checksum of the table and the tensors, so a shard can be judged,
and put into a new manifest, without any other file.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sdft.errors import DataError
from sdft.files import whole_file

KEY_BYTES = 16
"""128 bits: among 10**9 keys two are equal by chance once in 10**20 caches."""

StoredDtype = Literal["fp16", "bf16", "fp32"]

FORMAT = "sdft-tensors-1"

NUMPY_OF: Mapping[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "BF16": np.dtype("<u2"),
}
"""How the bytes of a safetensors dtype are held by numpy, which has no bfloat16."""

BYTES_OF: Mapping[StoredDtype, int] = {"fp16": 2, "bf16": 2, "fp32": 4}

SAFETENSORS_OF: Mapping[StoredDtype, str] = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""

SIZE_BYTES = 8
"""Of the number before a header that says how long it is."""

HASH_CHUNK_BYTES = 1 << 22
"""Large enough to hash at full speed, small against memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where one tensor lies in a shard."""

    key: str
    dtype: str
    """As safetensors writes it: F16, BF16, F32."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    num_bytes: int


class DamagedShard(DataError):
    """A shard that is cut off or altered."""


def encode_values(values: np.ndarray, dtype: StoredDtype) -> np.ndarray:
    """Return float values as they are written; bfloat16 as uint16, rounded to nearest even.

    What is too large for the type becomes infinite; the caller judges that.
    """
    if dtype == "bf16":
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        # A NaN whose low bits alone say so would be rounded into an infinity.
        quiet = np.where(np.isnan(values), (bits >> 16) | 0x40, rounded)
        return quiet.astype("<u2")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=NUMPY_OF[SAFETENSORS_OF[dtype]])


def decode_values(stored: np.ndarray, dtype: str) -> np.ndarray:
    """Return float16 or float32 values of what `encode_values` gave; bfloat16 as float32."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored


def write_shard(path: Path, arrays: Mapping[str, tuple[str, np.ndarray]]) -> tuple[Entry, ...]:
    """Write a whole shard or none; `arrays` are (safetensors dtype, encoded values) by key.

    Raises: EnvironmentFault where it cannot be written.
    """
    table: dict[str, dict[str, Any]] = {}
    end = 0
    for key, (dtype, values) in arrays.items():
        start, end = end, end + values.nbytes
        table[key] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [start, end]}
    checksum = blake2b(_table_bytes(table), digest_size=16)
    for _, values in arrays.values():
        checksum.update(values.data)
    metadata = {"format": FORMAT, "blake2b": checksum.hexdigest()}
    header = json.dumps({"__metadata__": metadata, **table}, separators=(",", ":")).encode("ascii")
    header += b" " * (-len(header) % 8)
    with whole_file(path) as part, part.open("wb") as file:
        file.write(len(header).to_bytes(SIZE_BYTES, "little"))
        file.write(header)
        for _, values in arrays.values():
            file.write(values.data)
    return _entries(table, data_start=SIZE_BYTES + len(header))


def read_shard(path: Path) -> tuple[Entry, ...]:
    """Return the entries of a shard after checking every byte of it.

    Raises: DamagedShard; FileNotFoundError.
    """
    with path.open("rb") as file:
        header_bytes = header_size(file.read(SIZE_BYTES), path)
        table, entries, written = _read_table(file.read(header_bytes), header_bytes, path)
        checksum = blake2b(_table_bytes(table), digest_size=16)
        while chunk := file.read(HASH_CHUNK_BYTES):
            checksum.update(chunk)
    if checksum.hexdigest() != written:
        raise _damaged(path, "its checksum does not fit")
    return entries


def header_size(begin: bytes, path: Path) -> int:
    """Return how long the header is that stands behind a shard's first SIZE_BYTES.

    Raises: DamagedShard.
    """
    header_bytes = int.from_bytes(begin[:SIZE_BYTES], "little")
    if len(begin) < SIZE_BYTES or not 2 <= header_bytes <= MAX_HEADER_BYTES:
        raise _damaged(path, "no safetensors header")
    return header_bytes


def entries_of(header: bytes, size_bytes: int, path: Path) -> tuple[Entry, ...]:
    """Return the entries of a shard of which only the header is here; nothing else is checked.

    Raises: DamagedShard, also where what it tells of is not as long as the file.
    """
    _, entries, _ = _read_table(header, len(header), path)
    end = max((entry.offset + entry.num_bytes for entry in entries), default=size_bytes)
    if end != size_bytes:
        raise _damaged(path, f"it has {size_bytes} bytes of {end}")
    return entries


def map_shard(path: Path, size_bytes: int) -> np.ndarray:
    """Return the bytes of a shard as a mapped, read-only array.

    Raises: DamagedShard where the size is not the one that was written; FileNotFoundError.
    """
    with path.open("rb") as file:
        found = file.seek(0, 2)
        if found != size_bytes:
            raise _damaged(path, f"it has {found} bytes of {size_bytes}")
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)


def _damaged(path: Path, how: str) -> DamagedShard:
    return DamagedShard(
        what=f"a cache file is damaged: {how}",
        where=str(path),
        fix="run cache-latents again: what it held is made anew",
    )


def _read_table(
    header: bytes, header_bytes: int, path: Path
) -> tuple[dict[str, Any], tuple[Entry, ...], str]:
    """Return a header's table, its entries, and the checksum that was written."""
    try:
        table = json.loads(header)
        metadata = table.pop("__metadata__")
        written = metadata["blake2b"]
        entries = _entries(table, data_start=SIZE_BYTES + header_bytes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, "its header cannot be read") from error
    if metadata.get("format") != FORMAT:
        raise _damaged(path, f"its format is not {FORMAT}")
    return table, entries, written


def _table_bytes(table: Mapping[str, Mapping[str, Any]]) -> bytes:
    return json.dumps(table, separators=(",", ":"), sort_keys=True).encode("ascii")


def _entries(table: Mapping[str, Mapping[str, Any]], data_start: int) -> tuple[Entry, ...]:
    entries = []
    for key, row in table.items():
        start, end = row["data_offsets"]
        entries.append(
            Entry(
                key=key,
                dtype=str(row["dtype"]),
                shape=tuple(row["shape"]),
                offset=data_start + start,
                num_bytes=end - start,
            )
        )
    return tuple(entries)
