"""A tiny Stable Diffusion made of the real classes, with random weights.

It has the topology of the real model (four U-Net levels of two blocks, three with attention, an
8 px VAE with four latent channels, CLIP's whole vocabulary) and some 8 million parameters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from sdft.files import whole_folder
from sdft.formats.clip_tokens import VOCABULARY_SIZE, write_tokenizer_files
from sdft.models.configs import (
    model_index_config,
    scheduler_config,
    text_config,
    unet_config,
    vae_config,
)
from sdft.models.family import FAMILIES, Family
from sdft.models.text import text_state_dict

UNET_WIDTHS = (32, 64, 64, 64)
VAE_WIDTHS = (32, 32, 64, 64)
TEXT_WIDTH = 64
TEXT_LAYERS = 3


def save_toy_model(folder: Path, *, seed: int, family: str = "sd1") -> None:
    """Write a toy model as a diffusers folder; the same seed gives the same weights.

    Raises: FileExistsError where the folder exists.
    """
    row = FAMILIES[family]
    configs = _configs(row)
    # The generator of the process is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_config(configs["unet"])
        vae = AutoencoderKL.from_config(configs["vae"])
        text_encoder = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
    with whole_folder(folder) as part:
        _save_part(part / "unet", "diffusion_pytorch_model", configs["unet"], unet.state_dict())
        _save_part(part / "vae", "diffusion_pytorch_model", configs["vae"], vae.state_dict())
        text_weights = text_state_dict(text_encoder)
        _save_part(part / "text_encoder", "model", configs["text_encoder"], text_weights)
        write_tokenizer_files(part / "tokenizer", row.tokenizer_padding)
        (part / "scheduler").mkdir()
        _write_json(part / "scheduler" / "scheduler_config.json", configs["scheduler"])
        _write_json(part / "model_index.json", configs["model_index"])


def _configs(family: Family) -> dict[str, dict[str, Any]]:
    heads = [family.unet_heads or max(1, width // 64) for width in UNET_WIDTHS]
    return {
        "unet": unet_config(
            widths=UNET_WIDTHS,
            layers_per_block=2,
            has_attention=(True, True, True, False),
            context_width=TEXT_WIDTH,
            heads=heads,
            linear_projection=family.unet_heads is None,
            upcast_attention=family.prediction_type == "v_prediction",
            sample_size=family.resolution_px // 8,
        ),
        "vae": vae_config(widths=VAE_WIDTHS, layers_per_block=2, latent_channels=4),
        "text_encoder": text_config(
            width=TEXT_WIDTH,
            mlp_width=4 * TEXT_WIDTH,
            num_layers=TEXT_LAYERS,
            heads=1,
            vocabulary_size=VOCABULARY_SIZE,
            positions=77,
            activation="quick_gelu" if family.tokenizer_padding == "eos" else "gelu",
        ),
        "scheduler": scheduler_config(family.prediction_type),
        "model_index": model_index_config(),
    }


def _save_part(folder: Path, stem: str, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True)
    _write_json(folder / "config.json", config)
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(contiguous, folder / f"{stem}.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
