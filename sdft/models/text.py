"""From token numbers to contexts, the text encoder's output that the U-Net attends to.

Shapes: B captions, K chunks of 77 tokens, S tokens of the whole caption, D text width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPTextModel

from sdft.errors import UserError
from sdft.formats.clip_tokens import ClipTokenizer

PREFIX = "text_model."
"""The level that every program before transformers 5.6 expects in a text encoder's key names."""


def inner_model(text_encoder: CLIPTextModel) -> torch.nn.Module:
    """Return the module that has `embeddings`, `encoder` and `final_layer_norm`.

    It is one level down until transformers 5.5 and the model itself from 5.6 on.
    """
    inner: torch.nn.Module = getattr(text_encoder, "text_model", text_encoder)
    return inner


def text_state_dict(text_encoder: CLIPTextModel) -> dict[str, Tensor]:
    """Return the weights under the names that all programs read, whatever transformers is here.

    The table of positions 0 .. 76 is left out: old versions saved it, and nothing needs it.
    """
    return {
        PREFIX + name: tensor
        for name, tensor in inner_model(text_encoder).state_dict().items()
        if not name.endswith("position_ids")
    }


def encode_chunks(
    text_encoder: CLIPTextModel,
    ids_BKS: Tensor,
    *,
    clip_skip: int | None,
    tokenizer: ClipTokenizer,
) -> Tensor:
    """Return the contexts of captions, each given as chunks of 77 tokens.

    Each chunk is encoded alone. The result has the first chunk's start, the 75 inner states of
    every chunk, and the last chunk's end. `clip_skip` n takes the n-th layer from the end, put
    through the final norm; None and 1 are the encoder's own output.

    Shapes: [B, K, 77] in, [B, 75 K + 2, D] out. Gradients flow where the encoder has them.
    Raises: UserError where `clip_skip` does not fit.
    """
    num_captions, num_chunks, chunk_length = ids_BKS.shape
    device = next(text_encoder.parameters()).device
    flat_ids = ids_BKS.reshape(num_captions * num_chunks, chunk_length).to(device)
    states = _layer_output(text_encoder, flat_ids, clip_skip, tokenizer)
    states_BKSD = states.reshape(num_captions, num_chunks, chunk_length, -1)
    if num_chunks == 1:
        return states_BKSD[:, 0]
    inner_BKSD = states_BKSD[:, :, 1:-1]
    if tokenizer.padding == "zero":
        inner_BKSD = _without_ends_of_empty_chunks(inner_BKSD, ids_BKS.to(device), tokenizer)
    return torch.cat(
        [states_BKSD[:, 0, :1], inner_BKSD.flatten(1, 2), states_BKSD[:, -1, -1:]], dim=1
    )


def _layer_output(
    text_encoder: CLIPTextModel,
    ids_NS: Tensor,
    clip_skip: int | None,
    tokenizer: ClipTokenizer,
) -> Tensor:
    if clip_skip is None or clip_skip == 1:
        output: Tensor = text_encoder(ids_NS).last_hidden_state
        return output
    if tokenizer.padding == "zero":
        raise UserError(
            what="clip_skip does not go with SD 2.x",
            where=f"clip_skip = {clip_skip}",
            fix="leave it out: SD 2.x takes the penultimate layer of its text encoder already",
        )
    hidden_states = text_encoder(ids_NS, output_hidden_states=True).hidden_states
    num_layers = text_encoder.config.num_hidden_layers
    # One entry a layer and the embeddings in front, in every version of transformers that we take.
    assert len(hidden_states) == num_layers + 1
    if not 1 <= clip_skip <= num_layers:
        raise UserError(
            what=f"this text encoder has {num_layers} layers",
            where=f"clip_skip = {clip_skip}",
            fix=f"use a number from 1 to {num_layers}",
        )
    final_norm: Any = inner_model(text_encoder).final_layer_norm
    states: Tensor = hidden_states[-clip_skip]
    # accelerate gives a trained encoder's output in float32, whatever its weights are in.
    skipped: Tensor = final_norm(states.to(final_norm.weight.dtype))
    return skipped.to(states.dtype)


def _without_ends_of_empty_chunks(
    inner_BKSD: Tensor, ids_BKS: Tensor, tokenizer: ClipTokenizer
) -> Tensor:
    """Put the padding's state over the end token of every later chunk that has no words.

    So a short caption has one end token, as it has without chunks.
    """
    is_empty_BK = ids_BKS[:, :, 1] == tokenizer.eos_id
    is_empty_BK = is_empty_BK & (torch.arange(ids_BKS.shape[1], device=ids_BKS.device) > 0)
    first_BKD = torch.where(is_empty_BK[..., None], inner_BKSD[:, :, 1], inner_BKSD[:, :, 0])
    return torch.cat([first_BKD[:, :, None], inner_BKSD[:, :, 1:]], dim=2)


def state_for(text_encoder: CLIPTextModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights named with or without the `text_model.` level as this model names them."""
    has_level = hasattr(text_encoder, "text_model")
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    return {(PREFIX + name if has_level else name): tensor for name, tensor in plain.items()}
