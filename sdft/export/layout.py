"""From networks under diffusers names to the tensors of a file in the original layout."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from sdft.formats.lazy import Constant, LazyTensor
from sdft.models import keymap
from sdft.models.family import Family
from sdft.models.refuse import UNET_PREFIX
from sdft.models.single_file import CLIP_PREFIX, OPEN_CLIP_PREFIX, VAE_PREFIX

Tensors = dict[str, LazyTensor]

ONE = {
    "F16": b"\x00\x3c",
    "BF16": b"\x80\x3f",
    "F32": struct.pack("<f", 1.0),
    "F64": struct.pack("<d", 1.0),
}
"""The bytes of 1 in the dtypes that weights come in."""


def original_tensors(
    weights: Mapping[str, Mapping[str, LazyTensor]],
    extras: Mapping[str, LazyTensor],
    family: Family,
) -> Tensors:
    """Return every tensor of a single file, by original names.

    In: the three networks' tensors by part and diffusers name, and the base's extras, which stay
    as they are.
    """
    uses_open_clip = family.text_activation == "gelu"
    unet, unet_rest = keymap.unet_to_original(weights["unet"], linear_projection=uses_open_clip)
    vae, vae_rest = keymap.vae_to_original(weights["vae"])
    if uses_open_clip:
        text, text_rest = keymap.open_clip_to_original(weights["text_encoder"])
    else:
        text, text_rest = keymap.clip_to_diffusers(weights["text_encoder"])
    unknown = [*unet_rest, *vae_rest, *text_rest]
    assert not unknown, unknown
    text_prefix = OPEN_CLIP_PREFIX if uses_open_clip else CLIP_PREFIX
    tensors = {
        **{UNET_PREFIX + name: tensor for name, tensor in unet.items()},
        **{VAE_PREFIX + name: tensor for name, tensor in vae.items()},
        **{text_prefix + name: tensor for name, tensor in text.items()},
    }
    made_up = _unused_open_clip(tensors) if uses_open_clip else {}
    return made_up | dict(extras) | tensors


def _unused_open_clip(tensors: Tensors) -> Tensors:
    """Return what an SD 2.x file has beside the layers in use, for a model that lacks it.

    Programs that load such files ask for it and never use it: one more block (a copy of the last
    one), a projection and a scale (ones), as sd-scripts writes them.
    """
    blocks = f"{OPEN_CLIP_PREFIX}transformer.resblocks."
    numbers = {int(n.removeprefix(blocks).split(".")[0]) for n in tensors if n.startswith(blocks)}
    last = max(numbers)
    copies = {
        name.replace(f"{blocks}{last}.", f"{blocks}{last + 1}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{blocks}{last}.")
    }
    norm = tensors[f"{OPEN_CLIP_PREFIX}ln_final.weight"]
    width = norm.shape[0]
    made = {"text_projection": (width, width), "logit_scale": ()}
    ones = Constant(ONE[norm.dtype])
    return copies | {
        OPEN_CLIP_PREFIX + name: LazyTensor.of(ones, name, norm.dtype, shape)
        for name, shape in made.items()
    }


def network_of(name: str) -> bool:
    """Tell whether a tensor of the original layout belongs to a network, not to a schedule."""
    return name.startswith((UNET_PREFIX, VAE_PREFIX, "cond_stage_model."))
