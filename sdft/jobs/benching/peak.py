"""What a device could do at best, and how much arithmetic a network asks for.

In: a device and a precision; a network's config and a picture's side. Out: FLOP/s, FLOP.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from sdft.models.vae import LATENT_CHANNELS, PIXELS_PER_CELL

HALF_PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA GeForce RTX 4090": 165e12,
    "NVIDIA GeForce RTX 4070": 58e12,
    "NVIDIA GeForce RTX 3060": 25.5e12,
}
"""FLOP/s of 16-bit products without sparsity, summed in float32, by torch's name of the card.
Source: NVIDIA's data sheets and architecture papers."""

_ROUNDS = 5
_TOKENS = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The most that a device does in a second."""

    flops: float
    source: str
    """Where the number is from, in words."""


def peak_of(device: torch.device, dtype: torch.dtype) -> Peak:
    """Return a known card's peak for 16-bit numbers, else that of a large product of matrices."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        known = HALF_PEAKS.get(torch.cuda.get_device_name(device))
        if known is not None:
            return Peak(flops=known, source="the card's peak by its data sheet")
    return Peak(flops=_of_a_product(device, dtype), source="a large product of matrices here")


def _of_a_product(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best_s = float("inf")
    for _ in range(_ROUNDS):
        wait_for(device)
        start_s = time.perf_counter()
        one @ other
        wait_for(device)
        best_s = min(best_s, time.perf_counter() - start_s)
    # A multiplication and an addition for each of side^3 pairs.
    return 2 * side**3 / best_s


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def unet_flops(config: Mapping[str, Any], side_px: int) -> int:
    """Return what forward and backward pass of one picture take; nothing is computed."""
    side = side_px // PIXELS_PER_CELL
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(dict(config)).train()
        latents_BCHW = torch.empty(1, LATENT_CHANNELS, side, side)
        contexts_BSD = torch.empty(1, _TOKENS, config["cross_attention_dim"])
        timesteps_B = torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        predicted_BCHW = unet(latents_BCHW, timesteps_B, contexts_BSD, return_dict=False)[0]
        torch.autograd.backward(predicted_BCHW.sum())
    return int(counter.get_total_flops())


def vae_flops(config: Mapping[str, Any], side_px: int) -> int:
    """Return what encoding one picture takes; nothing is computed."""
    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config(dict(config))
        pixels_BCHW = torch.empty(1, 3, side_px, side_px)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encode(pixels_BCHW)
    return int(counter.get_total_flops())
