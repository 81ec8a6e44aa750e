"""A file written by `torch.save`, read without torch and without running anything in it.

In: a .ckpt, .pt, .pth or .bin file, as the zip archive of torch 1.6 and later or in the older
form. Out: the described value, with a TensorInfo for each tensor that says where it lies.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdft.errors import DataError
from sdft.formats.pickle_data import (
    MAX_PICKLE_BYTES,
    Name,
    RefusedPickle,
    StorageRef,
    TensorRef,
    read_pickle,
)
from sdft.formats.tensor_info import DTYPE_BYTES, TensorInfo

ZIP_START = b"PK\x03\x04"
_OLD_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number by which torch before 1.6 begins a file, after the pickle's own head."""
START_BYTES = 64
"""Enough of a file's start to tell its form."""

MAX_ENTRIES = 200_000
"""A training checkpoint of SD with optimizer states has about 6,000."""

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
"""Source: PKWARE's APPNOTE 4.3.7."""

Scalar = int | float | str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledFile:
    value: Any
    """Dicts, lists, tuples and scalars as pickled; tensors as TensorInfo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledWeights:
    """The state dict of a checkpoint and what stands beside it."""

    tensors: dict[str, TensorInfo]
    scalars: dict[str, Scalar] = field(default_factory=dict)
    """Such as `epoch` and `global_step`."""
    left_out: tuple[str, ...] = ()
    """Names of what is neither, such as `optimizer_states`."""


def is_old_form(start: bytes) -> bool:
    """Tell from a file's first bytes whether torch before 1.6 wrote it."""
    return start.startswith(b"\x80") and _OLD_NUMBER in start


def read_pickled_file(path: Path) -> PickledFile:
    """Read what a `torch.save` file describes.

    Raises: DataError where it is damaged, holds anything but tensors and plain containers, or
        claims more than the file has; OSError where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
        if start.startswith(ZIP_START):
            value, places = _read_zip(path)
        elif is_old_form(start):
            value, places = _read_old(path)
        else:
            raise DataError(what="not a file that torch.save wrote", where=str(path))
        return PickledFile(value=_resolved(value, places))
    except RefusedPickle as error:
        raise DataError(
            what=f"refused, and nothing in it was run: it contains {error}",
            where=str(path),
            fix="get the model as .safetensors; a pickle with more than weights can be harmful",
        ) from error


def read_pickled_weights(path: Path) -> PickledWeights:
    """Read the weights of a checkpoint: its `state_dict`, or the file's own table.

    Raises: DataError as `read_pickled_file`, and where there are no weights.
    """
    value = read_pickled_file(path).value
    if not isinstance(value, dict):
        raise DataError(what="holds no table of weights", where=str(path))
    table = value
    for key in ("state_dict", "module", "model"):
        if isinstance(value.get(key), dict):
            table = value[key]
            break
    tensors = {
        name: tensor
        for name, tensor in table.items()
        if isinstance(name, str) and isinstance(tensor, TensorInfo)
    }
    beside = {key: item for key, item in value.items() if item is not table and key not in tensors}
    is_scalar = {key: isinstance(item, Scalar) for key, item in beside.items()}
    return PickledWeights(
        tensors=tensors,
        scalars={str(key): item for key, item in beside.items() if is_scalar[key]},
        left_out=tuple(str(key) for key in beside if not is_scalar[key]),
    )


Places = dict[str, tuple[int, int]]
"""Where the bytes of each storage begin in the file, and how many there are."""


def _resolved(value: Any, places: Places) -> Any:
    try:
        return _Resolver(places).resolve(value)
    except RecursionError:
        raise RefusedPickle("lists within lists without end") from None


class _Resolver:
    """Puts a TensorInfo in the place of each tensor.

    A value that stands in several places is done once; otherwise a small pickle of lists that
    hold themselves twice would take for ever.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._done: dict[int, Any] = {}
        self._kept: list[Any] = []

    def resolve(self, value: Any) -> Any:
        if isinstance(value, TensorRef):
            return self._tensor(value)
        if isinstance(value, Name):
            return value.text
        if not isinstance(value, dict | list | tuple):
            return value
        if id(value) not in self._done:
            # Kept alive, because a freed object's id is used again.
            self._kept.append(value)
            self._done[id(value)] = None
            self._done[id(value)] = self._container(value)
        return self._done[id(value)]

    def _container(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key.text if isinstance(key, Name) else key: self.resolve(item)
                for key, item in value.items()
            }
        items = [self.resolve(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items

    def _tensor(self, ref: TensorRef) -> TensorInfo:
        item_bytes = DTYPE_BYTES[ref.storage.dtype]
        if ref.storage.key not in self._places:
            raise RefusedPickle("a tensor without bytes (the file is cut off)")
        offset, num_bytes = self._places[ref.storage.key]
        if num_bytes < ref.storage.num_elements * item_bytes:
            raise RefusedPickle("a tensor with too few bytes (the file is cut off)")
        num_elements = 1
        for length in ref.shape:
            num_elements *= length
        return TensorInfo(
            dtype=ref.storage.dtype,
            shape=ref.shape,
            offset=offset + ref.first * item_bytes,
            num_bytes=num_elements * item_bytes,
            strides=None if ref.is_row_major else ref.strides,
        )


def _read_zip(path: Path) -> tuple[Any, Places]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(path, entries)
            description = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
            if len(description) != 1:
                raise DataError(what="a zip archive, but not one of torch.save", where=str(path))
            root = description[0].filename.removesuffix("data.pkl")
            value, _ = read_pickle(archive.read(description[0]))
            byte_order = next((e for e in entries if e.filename == f"{root}byteorder"), None)
            if byte_order is not None and archive.read(byte_order) != b"little":
                raise DataError(what="written on a big-endian machine", where=str(path))
    # A name in a local header that is no UTF-8 comes as a UnicodeDecodeError.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            what=f"damaged or cut off ({error})",
            where=str(path),
            fix="download or copy it again",
        ) from error
    return value, _places(path, entries, f"{root}data/")


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse what a zip can claim without having it: packed, overlapping or doubled entries."""
    file_bytes = path.stat().st_size
    if len(entries) > MAX_ENTRIES:
        raise RefusedPickle(f"{len(entries)} entries")
    if len({entry.filename for entry in entries}) != len(entries):
        raise RefusedPickle("two entries of one name")
    end_of_last = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise RefusedPickle(f'the packed entry "{entry.filename[:200]}"')
        if entry.flag_bits & 0x1:
            raise RefusedPickle(f'the encrypted entry "{entry.filename[:200]}"')
        if entry.header_offset < end_of_last:
            raise RefusedPickle(f'the overlapping entry "{entry.filename[:200]}"')
        end_of_last = entry.header_offset + _LOCAL_HEADER.size + entry.file_size
        if end_of_last > file_bytes:
            raise RefusedPickle("an entry beyond its end (the file is cut off)")
        if entry.filename.endswith("/data.pkl") and entry.file_size > MAX_PICKLE_BYTES:
            raise RefusedPickle(f"a description of {entry.file_size} bytes")


def _places(path: Path, entries: list[zipfile.ZipInfo], folder: str) -> Places:
    places: Places = {}
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        for entry in entries:
            if not entry.filename.startswith(folder):
                continue
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER.size)
            if len(header) != _LOCAL_HEADER.size or not header.startswith(ZIP_START):
                raise RefusedPickle("an entry without a head (the file is damaged)")
            name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)[-2:]
            offset = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
            if offset + entry.file_size > file_bytes:
                raise RefusedPickle("an entry beyond its end (the file is cut off)")
            places[entry.filename.removeprefix(folder)] = (offset, entry.file_size)
    return places


def _read_old(path: Path) -> tuple[Any, Places]:
    """Read the form of torch before 1.6: five pickles, then each storage with its length."""
    with path.open("rb") as file:
        raw = file.read(MAX_PICKLE_BYTES)
    position = 0
    values: list[Any] = []
    kinds: dict[str, StorageRef] = {}
    for _ in range(5):
        value, length = read_pickle(raw[position:], storages=kinds)
        position += length
        values.append(value)
    keys = values[4]
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise RefusedPickle("a list of storages that is none")
    places: Places = {}
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        for key in keys:
            file.seek(position)
            num_elements = int.from_bytes(file.read(8), "little")
            if key not in kinds:
                raise RefusedPickle("a storage that no tensor has")
            num_bytes = num_elements * DTYPE_BYTES[kinds[key].dtype]
            position += 8
            if position + num_bytes > file_bytes:
                raise RefusedPickle("a storage beyond its end (the file is cut off)")
            places[key] = (position, num_bytes)
            position += num_bytes
    return values[3], places
