"""What the network is asked for and how far off it is.

B batch, C channels, H and W latent height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdft.train.schedule import NUM_TIMESTEPS

EPSILON = "epsilon"
V_PREDICTION = "v_prediction"

SMALLEST_AREA = 1e-6
"""Less than one pixel of any picture; keeps the division by an empty mask's area finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRecipe:
    """How a difference becomes one number an item."""

    loss_type: str = "l2"
    """`l2`, `l1`, `huber` or `smooth_l1`."""
    huber_schedule: str = "snr"
    """How the Huber threshold follows the timestep: `constant`, `exponential` or `snr`."""
    huber_c: float = 0.1
    huber_scale: float = 1.0
    mean_over_mask: bool = True
    """Divide a masked loss by the mask's area, not by the whole picture's, as sd-scripts does."""


def add_noise(latents_BCHW: Tensor, noise_BCHW: Tensor, alphas_bar_B: Tensor) -> Tensor:
    """Return the noisy latents that the network sees.

    Shapes: two [B, C, H, W] and one [B] in; [B, C, H, W] out.
    Source: Ho et al. 2020 (arXiv 2006.11239), equation 4.
    """
    signal_B111, noise_B111 = _roots(alphas_bar_B)
    return signal_B111 * latents_BCHW + noise_B111 * noise_BCHW


def velocity_target(latents_BCHW: Tensor, noise_BCHW: Tensor, alphas_bar_B: Tensor) -> Tensor:
    """Return what a v-prediction network should output.

    Shapes: two [B, C, H, W] and one [B] in; [B, C, H, W] out.
    Source: Salimans and Ho 2022 (arXiv 2202.00512), appendix D, with alpha^2 = alpha-bar.
    """
    signal_B111, noise_B111 = _roots(alphas_bar_B)
    return signal_B111 * noise_BCHW - noise_B111 * latents_BCHW


def target_of(
    prediction_type: str, latents_BCHW: Tensor, noise_BCHW: Tensor, alphas_bar_B: Tensor
) -> Tensor:
    """Return the target of an `epsilon` or `v_prediction` network; shapes as in its parts."""
    if prediction_type == V_PREDICTION:
        return velocity_target(latents_BCHW, noise_BCHW, alphas_bar_B)
    assert prediction_type == EPSILON, prediction_type
    return noise_BCHW


def item_losses(
    prediction_BCHW: Tensor,
    target_BCHW: Tensor,
    timesteps_B: Tensor,
    alphas_bar_B: Tensor,
    recipe: LossRecipe,
    masks_BHW: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of each item, in float32.

    Where a mask is 0 everywhere the loss is 0.

    Shapes: two [B, C, H, W], two [B] and perhaps [B, H, W] in 0 .. 1 in; [B] out.
    """
    difference_BCHW = prediction_BCHW.float() - target_BCHW.float()
    losses_BCHW = elementwise_loss(difference_BCHW, timesteps_B, alphas_bar_B, recipe)
    if masks_BHW is None:
        return losses_BCHW.mean(dim=(1, 2, 3))
    means_B = (losses_BCHW * masks_BHW[:, None]).mean(dim=(1, 2, 3))
    if not recipe.mean_over_mask:
        return means_B
    areas_B = masks_BHW.mean(dim=(1, 2))
    return torch.where(areas_B > 0, means_B / areas_B.clamp(min=SMALLEST_AREA), means_B)


def elementwise_loss(
    difference_BCHW: Tensor, timesteps_B: Tensor, alphas_bar_B: Tensor, recipe: LossRecipe
) -> Tensor:
    """Return the loss of each element.

    Huber and smooth L1 are the pseudo-Huber forms of sd-scripts: 2c(sqrt(d^2 + c^2) - c), which
    tends to d^2 for small d, and 2(sqrt(d^2 + c^2) - c), which tends to 2|d| for small c.

    Shapes: [B, C, H, W] and two [B] in; [B, C, H, W] out.
    """
    if recipe.loss_type == "l2":
        return difference_BCHW.square()
    if recipe.loss_type == "l1":
        return difference_BCHW.abs()
    threshold_B111 = huber_threshold(timesteps_B, alphas_bar_B, recipe).view(-1, 1, 1, 1)
    excess_BCHW = (difference_BCHW.square() + threshold_B111.square()).sqrt() - threshold_B111
    if recipe.loss_type == "huber":
        return 2.0 * threshold_B111 * excess_BCHW
    assert recipe.loss_type == "smooth_l1", recipe.loss_type
    return 2.0 * excess_BCHW


def huber_threshold(timesteps_B: Tensor, alphas_bar_B: Tensor, recipe: LossRecipe) -> Tensor:
    """Return c for each item.

    `huber_scale` multiplies every schedule; sd-scripts leaves it out of `snr`.

    Shapes: two [B] in, [B] out.
    Source: the schedules are sd-scripts'; `snr` after Khrapov et al. 2024 (arXiv 2403.16728).
    """
    if recipe.huber_schedule == "constant":
        threshold_B = torch.full_like(alphas_bar_B, recipe.huber_c)
    elif recipe.huber_schedule == "exponential":
        threshold_B = torch.exp(math.log(recipe.huber_c) * timesteps_B / NUM_TIMESTEPS)
    else:
        assert recipe.huber_schedule == "snr", recipe.huber_schedule
        sigmas_B = ((1.0 - alphas_bar_B) / alphas_bar_B).sqrt()
        threshold_B = (1.0 - recipe.huber_c) / (1.0 + sigmas_B) ** 2 + recipe.huber_c
    return threshold_B * recipe.huber_scale


def _roots(alphas_bar_B: Tensor) -> tuple[Tensor, Tensor]:
    signal_B111 = alphas_bar_B.sqrt().view(-1, 1, 1, 1)
    noise_B111 = (1.0 - alphas_bar_B).sqrt().view(-1, 1, 1, 1)
    return signal_B111, noise_B111
