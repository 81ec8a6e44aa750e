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
from sdft.models.sizes import TextSizes, UNetSizes, VaeSizes

Tensors = dict[str, LazyTensor]
Weights = dict[str, Tensors]

PUBLISHED_VAE = VaeSizes(widths=(128, 256, 512, 512), layers_per_block=2, latent_channels=4)


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


def published_sizes(family: str) -> dict[str, UNetSizes | VaeSizes | TextSizes]:
    is_sd1 = family == "sd1"
    return {
        "unet": UNetSizes(
            widths=(320, 640, 1280, 1280),
            layers_per_block=2,
            has_attention=(True, True, True, False),
            context_width=768 if is_sd1 else 1024,
            linear_projection=not is_sd1,
            in_channels=4,
            out_channels=4,
        ),
        "vae": PUBLISHED_VAE,
        "text_encoder": TextSizes(
            width=768 if is_sd1 else 1024,
            mlp_width=3072 if is_sd1 else 4096,
            num_layers=12 if is_sd1 else 23,
            vocabulary_size=49408,
            positions=77,
        ),
    }


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
    weights = {
        part: {
            name: LazyTensor.of(source, name, dtype, shape)
            for name, shape in sizes.tensors().items()
        }
        for part, sizes in published_sizes(family).items()
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
