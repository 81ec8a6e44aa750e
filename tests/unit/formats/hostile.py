"""Tensor files made by hand, whole and broken, without torch."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdft.formats.lazy import LazyTensor
from sdft.formats.safetensors_write import write_safetensors


class Zeros:
    """A source of tensors full of zeros."""

    def read_into(self, name: str, first_byte: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))


def zeros(shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16") -> dict[str, LazyTensor]:
    return {name: LazyTensor.of(Zeros(), name, dtype, shape) for name, shape in shapes.items()}


def write_zeros(path: Path, shapes: Mapping[str, tuple[int, ...]], **metadata: str) -> Path:
    """Write a .safetensors file with tensors of these shapes."""
    with path.open("wb") as file:
        write_safetensors(file, zeros(shapes), metadata, with_hash=False)
    return path


def write_raw_header(path: Path, header: Any, data: bytes = b"") -> Path:
    """Write a .safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write_zip(
    path: Path,
    described: Any,
    storages: Mapping[str, bytes] | None = None,
    *,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write an archive as torch.save would; `described` is pickled, or taken as it is if bytes."""
    raw = described if isinstance(described, bytes) else pickle.dumps(described, protocol=2)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", raw)
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return path


def described_tensor(
    *,
    key: bytes = b"0",
    storage: bytes = b"FloatStorage",
    num_elements: int = 4,
    first: int = 0,
    shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,),
) -> bytes:
    """Return a whole pickle of {"state_dict": {"w": tensor}} with these claims about the tensor."""

    def number(value: int) -> bytes:
        return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    reference = b"(U\x07storagectorch\n" + storage + b"\nU" + bytes([len(key)]) + key + b"U\x03cpu"
    reference += number(num_elements) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + number(first)
    tensor += numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}U\x0astate_dict}U\x01w" + tensor + b"ss."
