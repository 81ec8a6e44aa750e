"""Digests of weights, by which caches and states know a network again.

In: a state dict. Out: hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import torch
from torch import Tensor

DIGEST_BYTES = 16
SAMPLED_VALUES = 64
"""Values of each tensor that a fingerprint looks at. Any training changes nearly all of them."""


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return the digest of all names, types, shapes and values; about 1 s for 1 GB."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for name in sorted(state):
        tensor = state[name]
        digest.update(_header(name, tensor))
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def weights_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return a digest of all names, types, shapes and some values; at once for any size."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for name in sorted(state):
        tensor = state[name]
        digest.update(_header(name, tensor))
        flat = tensor.detach().reshape(-1)
        stride = max(1, flat.numel() // SAMPLED_VALUES)
        digest.update(_bytes_of(flat[::stride]))
    return digest.hexdigest()


def _header(name: str, tensor: Tensor) -> bytes:
    return repr((name, str(tensor.dtype), tuple(tensor.shape))).encode("ascii")


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
