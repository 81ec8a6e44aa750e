"""One file of tensors, whatever its form, told by its content and not by its name.

In: a .safetensors file or one that torch.save wrote. Out: names, sizes and, on demand, bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdft.errors import DataError
from sdft.formats.lazy import LazyTensor
from sdft.formats.safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES, read_header
from sdft.formats.tensor_info import DTYPE_BYTES, TensorInfo
from sdft.formats.zip_pickle import (
    START_BYTES,
    ZIP_START,
    Scalar,
    is_old_form,
    read_pickled_weights,
)

SAFETENSORS = "safetensors"
PICKLE = "ckpt"

_TELLTALE_STARTS = {
    b"version https://git-lfs": (
        "a git-lfs pointer of a few lines, not the file that it stands for",
        "fetch it with `git lfs pull`, or download the file itself",
    ),
    b"<!doctype": ("a web page, not a model", "use the page's download link"),
    b"<html": ("a web page, not a model", "use the page's download link"),
    b"\x89HDF": ("a Keras or HDF5 file", "sdft reads .safetensors and .ckpt files"),
    b"GGUF": ("a GGUF file with packed weights", "get the model as .safetensors"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it first"),
    b"Rar!": ("a RAR archive", "unpack it first"),
    b"\x80": ("a pickle, but not one that torch.save wrote; nothing in it was run", ""),
    b"\x1f\x8b": ("a gzip archive", "unpack it first"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """Names and places of a file's tensors. Holds no file open."""

    path: Path
    form: str
    """`safetensors` or `ckpt`."""
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    """Numbers and texts beside the weights of a pickle, such as `global_step`."""
    left_out: tuple[str, ...] = ()
    """What else a pickle holds, such as `optimizer_states`."""

    def lazy(self, name: str) -> LazyTensor:
        info = self.tensors[name]
        return LazyTensor.of(self, name, info.dtype, info.shape)

    def all_lazy(self) -> dict[str, LazyTensor]:
        return {name: self.lazy(name) for name in self.tensors}

    def read_into(self, name: str, first_byte: int, buffer: memoryview) -> None:
        """Fill `buffer` with a tensor's bytes from `first_byte` on.

        Raises: DataError where the file has become shorter; OSError.
        """
        info = self.tensors[name]
        if info.strides is not None:
            _copy_row_major(self.path, info, first_byte, buffer)
            return
        # Opened anew for each read, so that the file can be replaced at any time on Windows too.
        with self.path.open("rb", buffering=0) as file:
            _read_exactly(self.path, file, info.offset + first_byte, buffer)


def open_tensor_file(path: Path) -> TensorFile:
    """Read what a file of tensors holds.

    Raises: DataError where it is none, is damaged, or is a pickle with more than weights.
    """
    form = recognise(path)
    if form == SAFETENSORS:
        header = read_header(path)
        return TensorFile(path=path, form=form, tensors=header.tensors, metadata=header.metadata)
    weights = read_pickled_weights(path)
    return TensorFile(
        path=path,
        form=form,
        tensors=weights.tensors,
        scalars=weights.scalars,
        left_out=weights.left_out,
    )


def recognise(path: Path) -> str:
    """Return `safetensors` or `ckpt` from the first bytes of a file.

    Raises: DataError that says what the file is instead, where that can be seen.
    """
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if start.startswith(ZIP_START) or is_old_form(start):
        return PICKLE
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if start[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and length <= MAX_HEADER_BYTES:
        return SAFETENSORS
    for telltale, (what, fix) in _TELLTALE_STARTS.items():
        if start.lstrip().lower().startswith(telltale.lower()):
            raise DataError(what=f"this is {what}", where=str(path), fix=fix)
    raise DataError(
        what="this is no model file" if start else "this file is empty",
        where=str(path),
        fix="sdft reads .safetensors and .ckpt files and diffusers folders",
        key="no_model_file",
    )


def _read_exactly(path: Path, file: io.FileIO, offset: int, buffer: memoryview) -> None:
    file.seek(offset)
    position = 0
    while position < len(buffer):
        # One call reads at most 2 GiB on Linux and fails for more on Windows and macOS.
        num_bytes = file.readinto(buffer[position : position + 2**28])
        if not num_bytes:
            raise DataError(what="cut off while it was read", where=str(path))
        position += num_bytes


def _copy_row_major(path: Path, info: TensorInfo, first_byte: int, buffer: memoryview) -> None:
    """Fill `buffer` from a tensor whose elements do not lie in order, such as a transposed one."""
    import numpy as np

    assert info.strides is not None
    item_bytes = DTYPE_BYTES[info.dtype]
    span = bytearray(info.span_bytes)
    with path.open("rb", buffering=0) as file:
        _read_exactly(path, file, info.offset, memoryview(span))
    elements = np.lib.stride_tricks.as_strided(
        np.frombuffer(span, dtype=f"V{item_bytes}"),
        shape=info.shape,
        strides=tuple(stride * item_bytes for stride in info.strides),
    )
    raw = elements.tobytes()
    buffer[:] = raw[first_byte : first_byte + len(buffer)]
