"""Writes a model as one file in the original layout, which every Stable Diffusion program reads.

In: the networks' weights, in memory or in another file. Out: a .safetensors or .ckpt, whole or
not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdft.export.layout import network_of, original_tensors
from sdft.files import require_space, whole_file
from sdft.formats.lazy import LazyTensor
from sdft.formats.safetensors_write import write_safetensors
from sdft.formats.tensor_file import PICKLE, SAFETENSORS
from sdft.formats.zip_pickle import Scalar
from sdft.formats.zip_pickle_write import write_pickled_weights
from sdft.models import keymap
from sdft.models.family import Family
from sdft.models.single_file import METADATA_SCALAR

if TYPE_CHECKING:
    from torch import Tensor

SAVE_DTYPES = {"float": "F32", "fp16": "F16", "bf16": "BF16"}
"""From the values of `save_precision`."""


def save_single_file(
    path: Path,
    *,
    unet: Mapping[str, Tensor],
    text_encoder: Mapping[str, Tensor],
    vae: Mapping[str, Tensor],
    family: Family,
    save_precision: str | None,
    form: str,
    metadata: Mapping[str, str],
    extras: Mapping[str, Tensor],
    scalars: Mapping[str, Scalar] | None = None,
    with_hash: bool = False,
    on_overflow: Callable[[str], None] = lambda _: None,
) -> int:
    """Write networks that are in memory; return the file's size in bytes.

    The weights go by diffusers names (the text encoder's with or without `text_model.`), `extras`
    by original ones. `save_precision` is `float`, `fp16`, `bf16` or None for each tensor's own.
    `form` is `safetensors` or `ckpt`; `scalars` go into a .ckpt only. `on_overflow` gets the name
    of each tensor with a number that is too large for fp16.
    Raises: EnvironmentFault where the disk is full or the place cannot be written.
    """
    networks = {"unet": unet, "vae": vae, "text_encoder": text_encoder}
    weights = {part: lazy_weights(part, tensors) for part, tensors in networks.items()}
    return write_single_file(
        path,
        weights=weights,
        extras=lazy_extras(extras),
        family=family,
        save_precision=save_precision,
        form=form,
        metadata=metadata,
        scalars=scalars or {},
        with_hash=with_hash,
        on_overflow=on_overflow,
    )


def write_single_file(
    path: Path,
    *,
    weights: Mapping[str, Mapping[str, LazyTensor]],
    extras: Mapping[str, LazyTensor],
    family: Family,
    save_precision: str | None,
    form: str,
    metadata: Mapping[str, str],
    scalars: Mapping[str, Scalar],
    with_hash: bool,
    on_overflow: Callable[[str], None] = lambda _: None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> int:
    """Write lazy tensors block by block, as `save_single_file` writes those in memory."""
    assert form in (SAFETENSORS, PICKLE), form
    tensors = {
        # A schedule's numbers lose their meaning in fp16, and nobody asked for that.
        name: in_precision(name, tensor, save_precision, on_overflow)
        if network_of(name)
        else tensor
        for name, tensor in original_tensors(weights, extras, family).items()
    }
    num_bytes = sum(tensor.num_bytes for tensor in tensors.values())
    require_space(path.parent, num_bytes, "this model")
    with whole_file(path) as part, part.open("wb") as file:
        if form == SAFETENSORS:
            head = {"format": "pt", **metadata}
            write_safetensors(file, tensors, head, with_hash=with_hash, on_bytes=on_bytes)
        else:
            beside: dict[str, Scalar] = {"epoch": 0, "global_step": 0, **scalars}
            if metadata:
                # A .ckpt has no header for it; as one text it survives the way through one.
                beside[METADATA_SCALAR] = json.dumps(dict(metadata), sort_keys=True)
            write_pickled_weights(file, tensors, scalars=beside, on_bytes=on_bytes)
    return path.stat().st_size


def in_precision(
    name: str,
    tensor: LazyTensor,
    save_precision: str | None,
    on_overflow: Callable[[str], None],
) -> LazyTensor:
    """Return a tensor in the dtype that `save_precision` names."""
    if save_precision is None:
        return tensor
    # Brings torch, 2 s, which a plain copy does without.
    from sdft.models.checkpoint import cast

    return cast(tensor, SAVE_DTYPES[save_precision], lambda: on_overflow(name))


def lazy_weights(part: str, tensors: Mapping[str, Tensor]) -> dict[str, LazyTensor]:
    """See a network's state dict as lazy tensors by diffusers names.

    What torch.compile and DDP put in front of the names is taken off.
    """
    from sdft.models.checkpoint import MemoryTensors

    plain = {
        name.replace("_orig_mod.", "").removeprefix("module."): tensor
        for name, tensor in tensors.items()
    }
    lazy = MemoryTensors(plain).all_lazy()
    return keymap.clip_to_diffusers(lazy)[0] if part == "text_encoder" else lazy


def lazy_extras(tensors: Mapping[str, Tensor]) -> dict[str, LazyTensor]:
    """See a base model's other tensors as lazy ones."""
    from sdft.models.checkpoint import MemoryTensors

    return MemoryTensors(tensors).all_lazy()
