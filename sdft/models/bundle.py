"""A Stable Diffusion in memory: its three networks, tokenizer, and where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from sdft.formats.clip_tokens import ClipTokenizer
from sdft.models.family import SD1, SD2_BASE, SD2_V, V_PREDICTION, Family
from sdft.models.text import state_for

PARTS = ("unet", "vae", "text_encoder")


@dataclass(frozen=True, kw_only=True)
class ModelBundle:
    """What `load_bundle` returns. Networks are in evaluation mode and need no gradients yet."""

    family: Family
    prediction_type: str
    """`epsilon` or `v_prediction`."""
    networks: Mapping[str, Any]
    """The asked ones of `unet`, `vae` and `text_encoder`."""
    configs: Mapping[str, dict[str, Any]]
    """`config.json` of each network, as a diffusers folder has it."""
    tokenizer: ClipTokenizer
    form: str
    """`safetensors`, `ckpt`, `diffusers` or `diffusers_safetensors`."""
    path: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the original layout has and the networks have not, under original names."""
    notices: tuple[str, ...] = ()
    """What a person should know about how the file was read."""

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.networks["unet"]

    @property
    def vae(self) -> AutoencoderKL:
        return self.networks["vae"]

    @property
    def text_encoder(self) -> CLIPTextModel:
        return self.networks["text_encoder"]


def load_bundle(
    path: Path,
    *,
    vae_path: Path | None = None,
    v2: bool | None = None,
    v_parameterization: bool | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    parts: Sequence[str] = PARTS,
) -> ModelBundle:
    """Load a model from any file form."""
    configs = {
        part: json.loads((path / part / "config.json").read_text(encoding="utf-8"))
        for part in PARTS
    }
    scheduler = json.loads((path / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    prediction_type = scheduler["prediction_type"]
    family = SD1
    if configs["text_encoder"]["hidden_act"] == "gelu":
        family = SD2_V if prediction_type == V_PREDICTION else SD2_BASE
    networks: dict[str, Any] = {}
    if "unet" in parts:
        networks["unet"] = UNet2DConditionModel.from_config(configs["unet"])
    if "vae" in parts:
        networks["vae"] = AutoencoderKL.from_config(configs["vae"])
    if "text_encoder" in parts:
        networks["text_encoder"] = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
    for part, network in networks.items():
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        weights = load_file(path / part / f"{stem}.safetensors")
        if part == "text_encoder":
            weights = state_for(network, weights)
        network.load_state_dict(weights)
        network.to(device, dtype).eval().requires_grad_(False)
    return ModelBundle(
        family=family,
        prediction_type=prediction_type,
        networks=networks,
        configs=configs,
        tokenizer=ClipTokenizer(family.tokenizer_padding),
        form="diffusers_safetensors",
        path=path,
    )
