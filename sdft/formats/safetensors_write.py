"""Writes a .safetensors file in blocks: the header first, then every tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from sdft.formats.lazy import LazyTensor, block_buffers, one_ahead
from sdft.formats.safetensors_header import write_header
from sdft.formats.tensor_info import DTYPE_BYTES

HASH_KEY = "modelspec.hash_sha256"
HASH_SLOT = "0x" + "0" * 64
"""Stands in the header until the tensors are written and their hash is known."""


def write_safetensors(
    file: IO[bytes],
    tensors: Mapping[str, LazyTensor],
    metadata: Mapping[str, str],
    *,
    with_hash: bool,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Write a whole file into `file`, which can seek.

    `with_hash` adds `modelspec.hash_sha256`, the SHA-256 of all bytes after the header.
    `on_bytes` is told the number of bytes of each block.
    """
    ordered = dict(sorted(tensors.items(), key=_place))
    if with_hash:
        metadata = {**metadata, HASH_KEY: HASH_SLOT}
    header = write_header({name: (t.dtype, t.shape) for name, t in ordered.items()}, metadata)
    file.write(header)
    digest = hashlib.sha256()
    # While a block is written, the one before is hashed and the next one is read, so there are
    # three buffers; one is used again only when its hash is done.
    buffers = block_buffers(3)
    blocks = (block for tensor in ordered.values() for block in tensor.blocks(buffers))
    with ThreadPoolExecutor(1) as worker:
        hashing = worker.submit(digest.update, b"")
        for block in one_ahead(blocks):
            file.write(block)
            on_bytes(len(block))
            hashing.result()
            if with_hash:
                hashing = worker.submit(digest.update, block)
    if with_hash:
        file.seek(header.index(HASH_SLOT.encode()))
        file.write(f"0x{digest.hexdigest()}".encode())


def _place(item: tuple[str, LazyTensor]) -> tuple[int, str]:
    """Larger elements come first, so that each tensor begins at a multiple of its own."""
    name, tensor = item
    return -DTYPE_BYTES[tensor.dtype], name
