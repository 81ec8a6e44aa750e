"""The noise of one item: what is added to its latents and what the network should find.

In: an address, the item's scaled latents, a NoiseRecipe. Out: two noise tensors.
Everything is drawn on the CPU in float32, item by item, so that no value depends on the batch,
the device or the process. C channels, H and W latent height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sdft.streams import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRecipe:
    """How noise departs from plain Gaussian noise. The defaults change nothing."""

    noise_offset: float = 0.0
    noise_offset_random_strength: bool = False
    adaptive_noise_scale: float = 0.0
    multires_noise_iterations: int = 0
    multires_noise_discount: float = 0.3
    ip_noise_gamma: float = 0.0
    ip_noise_gamma_random_strength: bool = False


def generator(address: Address, purpose: str) -> torch.Generator:
    """Return a CPU generator for one purpose of one use of an item."""
    return torch.Generator().manual_seed(address.seed64(purpose))


def draw_noise(address: Address, latents_CHW: Tensor, recipe: NoiseRecipe) -> tuple[Tensor, Tensor]:
    """Return (target noise, input noise): they differ only under input perturbation.

    The order is that of sd-scripts: offset, then multi-resolution noise, then perturbation.

    Shapes: [C, H, W] in, two [C, H, W] out.
    """
    noise_CHW = torch.randn(latents_CHW.shape, generator=generator(address, "noise"))
    if recipe.noise_offset:
        noise_CHW = noise_CHW + _offset(address, latents_CHW, recipe)
    if recipe.multires_noise_iterations:
        noise_CHW = _multires(
            address,
            noise_CHW,
            iterations=recipe.multires_noise_iterations,
            discount=recipe.multires_noise_discount,
        )
    if not recipe.ip_noise_gamma:
        return noise_CHW, noise_CHW
    gamma = recipe.ip_noise_gamma
    if recipe.ip_noise_gamma_random_strength:
        gamma *= address.stream("ip_noise_gamma").random()
    perturbation_CHW = torch.randn(latents_CHW.shape, generator=generator(address, "ip_noise"))
    return noise_CHW, noise_CHW + gamma * perturbation_CHW


def _offset(address: Address, latents_CHW: Tensor, recipe: NoiseRecipe) -> Tensor:
    """Return one Gaussian value a channel, times the strength.

    Shapes: [C, H, W] in, [C, 1, 1] out.
    Source: Guttenberg 2023, "Diffusion with Offset Noise"; the adaptive strength is sd-scripts'.
    """
    channels = latents_CHW.shape[0]
    strength = recipe.noise_offset
    if recipe.noise_offset_random_strength:
        strength *= address.stream("noise_offset_strength").random()
    strength_C11 = torch.full((channels, 1, 1), strength)
    if recipe.adaptive_noise_scale:
        mean_C11 = latents_CHW.mean(dim=(1, 2), keepdim=True).abs()
        strength_C11 = (strength_C11 + recipe.adaptive_noise_scale * mean_C11).clamp(min=0.0)
    return strength_C11 * torch.randn(
        (channels, 1, 1), generator=generator(address, "noise_offset")
    )


def _multires(address: Address, noise_CHW: Tensor, *, iterations: int, discount: float) -> Tensor:
    """Add noise of ever lower resolution, then bring the sum back to unit deviation.

    The deviation is the item's own; sd-scripts takes one over the whole batch, which would let the
    other items of a batch change this one's noise.

    Shapes: [C, H, W] in and out.
    Source: Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training".
    """
    channels, height, width = noise_CHW.shape
    scales = address.stream("multires_scale")
    draws = generator(address, "multires_noise")
    for level in range(iterations):
        shrink = (2.0 + 2.0 * scales.random()) ** level
        size = (max(1, int(height / shrink)), max(1, int(width / shrink)))
        coarse_1CHW = torch.randn((1, channels, *size), generator=draws)
        fine_1CHW = interpolate(coarse_1CHW, size=(height, width), mode="bilinear")
        noise_CHW = noise_CHW + fine_1CHW[0] * discount**level
        if 1 in size:
            break
    return noise_CHW / noise_CHW.std()
