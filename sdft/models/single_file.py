"""A model in the original layout: one .safetensors or .ckpt with prefixes for its networks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from sdft.formats.lazy import LazyTensor
from sdft.formats.tensor_file import open_tensor_file
from sdft.models import keymap
from sdft.models.family import SD1_GENERATION, SD2_GENERATION, stated_prediction
from sdft.models.refuse import UNET_PREFIX, refuse_other_kinds
from sdft.models.source import ModelSource

VAE_PREFIX = "first_stage_model."
CLIP_PREFIX = "cond_stage_model.transformer."
OPEN_CLIP_PREFIX = "cond_stage_model.model."
EMA_PREFIX = "model_ema."

METADATA_SCALAR = "sdft_metadata"
"""Beside `state_dict` in a .ckpt that `sdft` wrote: the metadata, as JSON because a .ckpt has no
header for it."""

_CLIP_PREFIXES = (CLIP_PREFIX, "conditioner.embedders.0.transformer.")
_OPEN_CLIP_PREFIXES = (OPEN_CLIP_PREFIX, "conditioner.embedders.0.model.")
"""The second of each is what Stability's generative-models writes."""

_BLOCKS_IN_USE = 23
_PUBLISHED_WIDTH = 1024
"""OpenCLIP ViT-H has 24 blocks of 1024 channels; SD 2.x uses the output of the 23rd."""

Tensors = dict[str, LazyTensor]


def open_single_file(path: Path) -> ModelSource:
    """See a single file as three networks.

    Raises: DataError where it is damaged or of another kind.
    """
    file = open_tensor_file(path)
    tensors = file.all_lazy()
    refuse_other_kinds({name: tensor.shape for name, tensor in tensors.items()}, str(path))
    weights: dict[str, Tensors] = {}
    extras: Tensors = {}

    unet_original, other = _split(tensors, UNET_PREFIX)
    weights["unet"], rest = keymap.unet_to_diffusers(unet_original)
    extras |= _prefixed(rest, UNET_PREFIX)
    vae_original, other = _split(other, VAE_PREFIX)
    if vae_original:
        weights["vae"], rest = keymap.vae_to_diffusers(vae_original)
        extras |= _prefixed(rest, VAE_PREFIX)
    text, text_extras, other = _text_encoder(other)
    if text:
        weights["text_encoder"] = text
        extras |= text_extras
    ema_flat, other = _split(other, EMA_PREFIX)
    extras |= other
    scalars = dict(file.scalars)
    metadata = {**file.metadata, **_pickled_metadata(scalars.pop(METADATA_SCALAR, None))}
    return ModelSource(
        path=path,
        form=file.form,
        generation=_generation(weights, tensors),
        stated_prediction=stated_prediction(metadata),
        weights=weights,
        extras=extras,
        ema=_ema(unet_original, ema_flat),
        metadata=metadata,
        scalars=scalars,
        left_out=file.left_out,
    )


def _pickled_metadata(text: object) -> dict[str, str]:
    try:
        table = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        table = {}
    return {str(key): value for key, value in table.items() if isinstance(value, str)}


def _text_encoder(tensors: Tensors) -> tuple[Tensors, Tensors, Tensors]:
    """Return the text encoder, what it has no place for (original names), and all the rest."""
    for prefix in _CLIP_PREFIXES:
        clip, other = _split(tensors, prefix)
        mapped, rest = keymap.clip_to_diffusers(clip)
        # Some mergers leave a table of positions under this prefix in SD 2.x files.
        if mapped:
            return mapped, _prefixed(rest, CLIP_PREFIX), other
    for prefix in _OPEN_CLIP_PREFIXES:
        open_clip, other = _split(tensors, prefix)
        if open_clip:
            used = _layers_in_use(open_clip)
            mapped, rest = keymap.open_clip_to_diffusers(open_clip, num_layers=used)
            return mapped, _prefixed(rest, OPEN_CLIP_PREFIX), other
    return {}, {}, tensors


def _layers_in_use(open_clip: Mapping[str, LazyTensor]) -> int:
    """Return how many blocks make the context: all but the last, which some files leave out."""
    numbers = [
        int(match[1])
        for name in open_clip
        if (match := re.match(r"transformer\.resblocks\.(\d{1,4})\.", name))
    ]
    num_blocks = max(numbers, default=0) + 1
    width = open_clip["ln_final.weight"].shape[0] if "ln_final.weight" in open_clip else 0
    if width == _PUBLISHED_WIDTH and num_blocks == _BLOCKS_IN_USE:
        return num_blocks
    return max(1, num_blocks - 1)


def _generation(weights: Mapping[str, Tensors], tensors: Mapping[str, LazyTensor]) -> str:
    contexts = {
        tensor.shape[-1]
        for name, tensor in weights["unet"].items()
        if name.endswith(".attn2.to_k.weight")
    }
    if contexts in ({768}, {1024}):
        return SD1_GENERATION if contexts == {768} else SD2_GENERATION
    # A small model of the same topology: its text encoder or its projections tell.
    if any(name.startswith(_OPEN_CLIP_PREFIXES) for name in tensors):
        return SD2_GENERATION
    if any(name.startswith(_CLIP_PREFIXES) for name in tensors):
        return SD1_GENERATION
    is_linear = any(
        name.endswith(".proj_in.weight") and len(tensor.shape) == 2
        for name, tensor in weights["unet"].items()
    )
    return SD2_GENERATION if is_linear else SD1_GENERATION


def _ema(unet_original: Mapping[str, LazyTensor], ema_flat: Mapping[str, LazyTensor]) -> Tensors:
    """Return the running averages by diffusers names; empty unless all are there."""
    named: Tensors = {}
    for name in unet_original:
        flat = keymap.ema_name(UNET_PREFIX + name).removeprefix(EMA_PREFIX)
        if flat not in ema_flat:
            return {}
        named[name] = ema_flat[flat]
    return keymap.unet_to_diffusers(named)[0]


def _split(tensors: Mapping[str, LazyTensor], prefix: str) -> tuple[Tensors, Tensors]:
    """Return the tensors with a prefix, without it, and all other ones."""
    inside = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return inside, {n: tensor for n, tensor in tensors.items() if not n.startswith(prefix)}


def _prefixed(tensors: Mapping[str, LazyTensor], prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}
