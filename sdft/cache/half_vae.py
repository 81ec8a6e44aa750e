"""A VAE in fp16 whose overflows are encoded again in float32.

The published VAEs leave the range of fp16 on some pictures, most of all SD 2's. Only those pictures
pay for float32: what one picture gets depends on that picture alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdft.cache.encoders import VaeEncoder


class HalfVaeEncoder:
    """Gives pictures' moments. Shapes: B pictures, H W pixels, h w latent cells."""

    def __init__(
        self,
        half_vae: AutoencoderKL,
        *,
        load_whole_vae: Callable[[], AutoencoderKL],
        tell_once: Callable[[], None],
    ) -> None:
        """`load_whole_vae` gives the same VAE in float32 on the same device, where it is needed.

        `tell_once` is called at the first overflow.
        """
        self._half = VaeEncoder(half_vae)
        self._load_whole_vae = load_whole_vae
        self._tell_once = tell_once
        self._whole: VaeEncoder | None = None

    def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to encode uint8 pictures; the result gives [B, 8, h, w] float32."""
        half_result = self._half.submit(rgb_BHWC)

        def result() -> np.ndarray:
            moments_BCHW = half_result()
            overflowed = ~np.isfinite(moments_BCHW).all(axis=(1, 2, 3))
            for number in np.flatnonzero(overflowed):
                # One at a time: which others overflowed must not change its bits.
                moments_BCHW[number] = self._encode_whole(rgb_BHWC[number : number + 1])
            return moments_BCHW

        return result

    def explain_not_finite(self) -> tuple[str, str]:
        """Return why latents may hold NaN or infinity, and what to do about it."""
        return (self._whole or self._half).explain_not_finite()

    def _encode_whole(self, rgb_1HWC: np.ndarray) -> np.ndarray:
        if self._whole is None:
            self._tell_once()
            self._whole = VaeEncoder(self._load_whole_vae())
        moments_CHW: np.ndarray = self._whole.submit(rgb_1HWC)()[0]
        return moments_CHW
