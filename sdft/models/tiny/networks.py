"""The sizes of the tiny model, and its three networks."""

from __future__ import annotations

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from sdft.formats.clip_tokens import VOCABULARY_SIZE
from sdft.models.configs import Config
from sdft.models.family import SD1
from sdft.models.sizes import TextSizes, UNetSizes, VaeSizes
from sdft.models.source import config_from_sizes

TEXT_WIDTH = 32
"""Narrow: the 49,408 token embeddings are most of a small text encoder."""

# No width is below 64: the layout's group norms have 32 groups, and where a group is one channel,
# they take the mean of each channel away, so that a plain ground has no way to say its colour.
SIZES: dict[str, Any] = {
    "unet": UNetSizes(
        widths=(64, 64, 64, 64),
        layers_per_block=1,
        has_attention=(True, True, True, False),
        context_width=TEXT_WIDTH,
        linear_projection=False,
        in_channels=4,
        out_channels=4,
    ),
    "vae": VaeSizes(widths=(64, 64, 64, 64), layers_per_block=1, latent_channels=4),
    "text_encoder": TextSizes(
        width=TEXT_WIDTH,
        mlp_width=4 * TEXT_WIDTH,
        num_layers=3,
        vocabulary_size=VOCABULARY_SIZE,
        positions=77,
    ),
}


def tiny_configs() -> dict[str, Config]:
    """Return the config.json of each network."""
    return {part: config_from_sizes(part, sizes, SD1) for part, sizes in SIZES.items()}


def new_networks() -> dict[str, Any]:
    """Return the networks with random weights, drawn from torch's own generator."""
    configs = tiny_configs()
    return {
        "unet": UNet2DConditionModel.from_config(configs["unet"]),
        "vae": AutoencoderKL.from_config(configs["vae"]),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
    }
