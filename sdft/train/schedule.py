"""The noise schedule of Stable Diffusion 1.x and 2.x.

In: nothing, or the wish for a zero terminal signal-to-noise ratio. Out: alphas_cumprod.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
BETA_START = 0.00085
BETA_END = 0.012
"""`timesteps`, `linear_start` and `linear_end` of CompVis' v1-inference.yaml."""


def alphas_cumprod(*, zero_terminal_snr: bool = False) -> Tensor:
    """Return alpha-bar of the DDPM process for t = 0 .. 999.

    Betas grow linearly in their square root ("scaled linear"), in float32 as diffusers'
    DDPMScheduler computes them, so that both give the same bits.

    Shapes: [1000] out, float32, on the CPU.
    """
    betas_T = (
        torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TIMESTEPS, dtype=torch.float32) ** 2
    )
    alphas_bar_T = torch.cumprod(1.0 - betas_T, dim=0)
    return rescale_to_zero_terminal_snr(alphas_bar_T) if zero_terminal_snr else alphas_bar_T


def rescale_to_zero_terminal_snr(alphas_bar_T: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha-bar) so that the last value is 0 and the first stays.

    Shapes: [T] in and out.
    Source: Lin et al. 2023 (arXiv 2305.08891), algorithm 1.
    """
    root_T = alphas_bar_T.sqrt()
    first, last = root_T[0].clone(), root_T[-1].clone()
    return ((root_T - last) * first / (first - last)) ** 2


def signal_to_noise(alphas_bar: Tensor) -> Tensor:
    """Return SNR = alpha-bar / (1 - alpha-bar), of any shape."""
    return alphas_bar / (1.0 - alphas_bar)
