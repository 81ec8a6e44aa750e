"""From pictures to latents and back.

Shapes: B batch, C channels, H W height and width in pixels, h w in latent cells (a cell is 8 px).
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

LATENT_SCALE = 0.18215
"""Brings SD 1.x and 2.x latents near unit variance. Source: scale_factor of CompVis'
v1-inference.yaml."""

LATENT_CHANNELS = 4
PIXELS_PER_CELL = 8
"""Three halvings in the encoder. Source: ch_mult of CompVis' v1-inference.yaml has four levels."""


def pixels_from_uint8(rgb_BHWC: np.ndarray, device: torch.device | None = None) -> Tensor:
    """Return pictures as the VAE wants them: [B, C, H, W] float32 in -1 .. 1, on `device`.

    Shapes: [B, H, W, C] or [H, W, C] uint8 in (the latter becomes a batch of one).
    """
    batch = rgb_BHWC if rgb_BHWC.ndim == 4 else rgb_BHWC[None]
    assert batch.dtype == np.uint8, "pictures are 8-bit RGB"
    bytes_BHWC = torch.from_numpy(np.ascontiguousarray(batch))
    if device is not None and device.type == "cuda":
        # A quarter of the floats' bytes, and a copy that the caller does not wait for.
        bytes_BHWC = bytes_BHWC.pin_memory().to(device, non_blocking=True)
    pixels_BCHW = bytes_BHWC.permute(0, 3, 1, 2).float()
    return (pixels_BCHW / 255.0 - 0.5) / 0.5


def pixels_to_uint8(pixels_BCHW: Tensor) -> np.ndarray:
    """Return [B, H, W, C] uint8 pictures; values outside of -1 .. 1 are cut."""
    scaled_BCHW = (pixels_BCHW.float() / 2 + 0.5).clamp(0, 1) * 255
    whole_BHWC = scaled_BCHW.round().to(torch.uint8).permute(0, 2, 3, 1)
    return np.ascontiguousarray(whole_BHWC.cpu().numpy())


@torch.no_grad()
def encode_moments(vae: AutoencoderKL, pixels_BCHW: Tensor) -> Tensor:
    """Return the encoder's distribution: mean and log variance, one after the other.

    Shapes: [B, 3, H, W] in, [B, 2 * 4, H / 8, W / 8] out; unscaled.
    """
    parameter = next(vae.parameters())
    hidden = vae.encoder(pixels_BCHW.to(parameter.device, parameter.dtype))
    moments_BCHW: Tensor = vae.quant_conv(hidden) if vae.quant_conv is not None else hidden
    return moments_BCHW


@torch.no_grad()
def decode(vae: AutoencoderKL, latents_BCHW: Tensor) -> Tensor:
    """Return pictures in about -1 .. 1 for scaled latents.

    Shapes: [B, 4, h, w] in, [B, 3, 8 h, 8 w] out.
    """
    parameter = next(vae.parameters())
    unscaled_BCHW = latents_BCHW.to(parameter.device, parameter.dtype) / LATENT_SCALE
    pixels_BCHW: Tensor = vae.decode(unscaled_BCHW, return_dict=False)[0]
    return pixels_BCHW
