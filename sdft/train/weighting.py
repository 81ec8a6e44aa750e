"""How much each item's loss counts, by its signal-to-noise ratio.

The ratios are those of the schedule in use, so of the rescaled one under zero terminal SNR.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdft.train.objective import V_PREDICTION
from sdft.train.schedule import signal_to_noise

SNR_LIMIT = 1000.0
"""Where the ratio at t = 0 (about 1175) is cut before it divides. Source: sd-scripts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRecipe:
    """Which weights multiply the items' losses; the defaults multiply by 1."""

    min_snr_gamma: float | None = None
    scale_v_pred_loss_like_noise_pred: bool = False
    v_pred_like_loss: float | None = None
    debiased_estimation_loss: bool = False


def loss_weights(alphas_bar_B: Tensor, prediction_type: str, recipe: WeightRecipe) -> Tensor:
    """Return the factor of each item's loss.

    Shapes: [B] in and out.
    Source: Hang et al. 2023 (arXiv 2303.09556) for Min-SNR; the others are sd-scripts'.
    """
    is_v = prediction_type == V_PREDICTION
    snr_B = signal_to_noise(alphas_bar_B)
    cut_B = snr_B.clamp(max=SNR_LIMIT)
    weights_B = torch.ones_like(alphas_bar_B)
    if recipe.min_snr_gamma is not None:
        weights_B = weights_B * min_snr(snr_B, gamma=recipe.min_snr_gamma, is_v=is_v)
    if recipe.scale_v_pred_loss_like_noise_pred:
        weights_B = weights_B * cut_B / (cut_B + 1.0)
    if recipe.v_pred_like_loss is not None:
        weights_B = weights_B * (1.0 + recipe.v_pred_like_loss * (cut_B + 1.0) / cut_B)
    if recipe.debiased_estimation_loss:
        weights_B = weights_B * (1.0 / (cut_B + 1.0) if is_v else cut_B.rsqrt())
    return weights_B


def min_snr(snr_B: Tensor, *, gamma: float, is_v: bool) -> Tensor:
    """Return min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for v.

    The first is written so that a ratio of 0, as at the end of a zero-terminal schedule, gives 1.

    Shapes: [B] in and out.
    """
    if is_v:
        return snr_B.clamp(max=gamma) / (snr_B + 1.0)
    return (gamma / snr_B).clamp(max=1.0)
