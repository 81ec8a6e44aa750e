"""Full-size Stable Diffusion files with random weights, written without holding them in memory.

The sizes are those of the published models: SD 1.5, SD 2.1-base and SD 2.1 768-v.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdft.export.layout import original_tensors
from sdft.export.single_file import write_single_file
from sdft.formats.lazy import BLOCK_BYTES, LazyTensor
from sdft.formats.tensor_info import DTYPE_BYTES
from sdft.models.family import FAMILIES, Family
from sdft.models.published import published_sizes

Tensors = dict[str, LazyTensor]
Weights = dict[str, Tensors]


class RandomTensors:
    """Tensors whose bytes are drawn when they are read: small numbers, the same every time."""

    def __init__(self, dtype: str) -> None:
        kind = {"F32": np.float32, "F16": np.float16}[dtype]
        numbers = np.random.default_rng(0).standard_normal(BLOCK_BYTES // DTYPE_BYTES[dtype])
        self._block = (numbers * 0.02).astype(kind).tobytes() * 2
        self.dtype = dtype

    def read_into(self, name: str, first_byte: int, buffer: memoryview) -> None:
        # Each tensor begins at another place, so that no two are equal.
        shift = (hash_of(name) + first_byte) % BLOCK_BYTES // 4 * 4
        for start in range(0, len(buffer), BLOCK_BYTES):
            part = buffer[start : start + BLOCK_BYTES]
            part[:] = self._block[shift : shift + len(part)]


def hash_of(name: str) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(name.encode()[-8:], "little")


def _random_extras(weights: Weights, family: Family, source: RandomTensors) -> Tensors:
    """What an SD 2.x file has beside the networks, with numbers that nobody could make up."""
    marks = (".resblocks.23.", ".text_projection", ".logit_scale")
    return {
        name: LazyTensor.of(source, name, source.dtype, tensor.shape)
        for name, tensor in original_tensors(weights, {}, family).items()
        if any(mark in name for mark in marks)
    }


def write_random_model(path: Path, *, family: str, dtype: str = "F32", form: str) -> int:
    """Write a full-size single file; return its size in bytes."""
    source = RandomTensors(dtype)
    sizes_of = published_sizes(family)
    parts = {"unet": sizes_of.unet, "vae": sizes_of.vae, "text_encoder": sizes_of.text_encoder}
    weights = {
        part: {
            name: LazyTensor.of(source, name, dtype, shape)
            for name, shape in sizes.tensors().items()
        }
        for part, sizes in parts.items()
    }
    row = FAMILIES[family]
    prediction = "v" if row.prediction_type == "v_prediction" else "epsilon"
    return write_single_file(
        path,
        weights=weights,
        extras=_random_extras(weights, row, source),
        family=row,
        save_precision=None,
        form=form,
        metadata={"modelspec.prediction_type": prediction, "modelspec.license": "test"},
        scalars={},
        with_hash=False,
    )
