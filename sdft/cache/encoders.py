"""The VAE as the cache pass sees it.

In: pictures. Out: float32 arrays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdft.models.vae import encode_moments, pixels_from_uint8


class VaeEncoder:
    """Gives pictures' moments. Shapes: B pictures, H W pixels, h w latent cells."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self._vae = vae.eval()
        self._device = next(vae.parameters()).device

    def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to encode uint8 pictures; the result gives [B, 8, h, w] float32.

        On a GPU the work goes on while the caller prepares the next batch.
        """
        moments_BCHW = encode_moments(self._vae, pixels_from_uint8(rgb_BHWC, self._device))

        def result() -> np.ndarray:
            values: np.ndarray = moments_BCHW.float().cpu().numpy()
            return values

        return result

    def explain_not_finite(self) -> tuple[str, str]:
        """Return why latents may hold NaN or infinity, and what to do about it."""
        for name, parameter in self._vae.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                return f"the VAE's own weights are not finite ({name})", "use another VAE file"
        if next(self._vae.parameters()).dtype == torch.float16:
            return "the VAE overflows in fp16", "use --no_half_vae, or a VAE made for fp16"
        return "the VAE overflows on this picture", "look at the picture, or leave it out"
