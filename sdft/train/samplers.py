"""The samplers by name: how a picture is drawn out of noise.

In: a sampler's name and what the network predicts. Out: diffusers' scheduler, set up as the
published Stable Diffusion folders set it up.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler

from sdft.registry import Registry
from sdft.train.schedule import BETA_END, BETA_START, NUM_TIMESTEPS, alphas_cumprod

_SCHEDULERS = "diffusers.schedulers.scheduling_"
_LMS = "sdft.train.samplers:ExactLms"
SAMPLERS = Registry(
    "sampler",
    {
        "ddim": f"{_SCHEDULERS}ddim:DDIMScheduler",
        "pndm": f"{_SCHEDULERS}pndm:PNDMScheduler",
        "lms": _LMS,
        "euler": f"{_SCHEDULERS}euler_discrete:EulerDiscreteScheduler",
        "euler_a": f"{_SCHEDULERS}euler_ancestral_discrete:EulerAncestralDiscreteScheduler",
        "heun": f"{_SCHEDULERS}heun_discrete:HeunDiscreteScheduler",
        "dpm_2": f"{_SCHEDULERS}k_dpm_2_discrete:KDPM2DiscreteScheduler",
        "dpm_2_a": f"{_SCHEDULERS}k_dpm_2_ancestral_discrete:KDPM2AncestralDiscreteScheduler",
        "dpmsolver": f"{_SCHEDULERS}dpmsolver_multistep:DPMSolverMultistepScheduler",
        "dpmsolver++": f"{_SCHEDULERS}dpmsolver_multistep:DPMSolverMultistepScheduler",
        "dpmsingle": f"{_SCHEDULERS}dpmsolver_singlestep:DPMSolverSinglestepScheduler",
        "k_lms": _LMS,
        "k_euler": f"{_SCHEDULERS}euler_discrete:EulerDiscreteScheduler",
        "k_euler_a": f"{_SCHEDULERS}euler_ancestral_discrete:EulerAncestralDiscreteScheduler",
        "k_dpm_2": f"{_SCHEDULERS}k_dpm_2_discrete:KDPM2DiscreteScheduler",
        "k_dpm_2_a": f"{_SCHEDULERS}k_dpm_2_ancestral_discrete:KDPM2AncestralDiscreteScheduler",
    },
)

_AS_PUBLISHED: dict[str, Any] = {
    "num_train_timesteps": NUM_TIMESTEPS,
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    # Clamping predicted latents is a habit of pixel-space models, whose values end at -1 and 1.
    "clip_sample": False,
}
"""Source: scheduler_config.json of the published SD 1.x and 2.x folders. Each class takes of them
what it knows."""

_OWN: dict[str, dict[str, Any]] = {
    # The first form of the solver has no step to a noise of exactly 0.
    "dpmsolver": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    "dpmsolver++": {"algorithm_type": "dpmsolver++"},
    # What diffusers switches on by itself, with a warning, for the usual numbers of steps.
    "dpmsingle": {"lower_order_final": True},
}

LEAST_ALPHA_BAR = 2.0**-24
"""Stands for the 0 at the end of a zero-terminal schedule, by which samplers would divide.
Source: diffusers does the same in its Euler schedulers."""


class ExactLms(LMSDiscreteScheduler):  # type: ignore[misc]
    """diffusers' LMS scheduler with its integrals solved exactly, which needs no scipy."""

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """Return the integral of a Lagrange polynomial from sigma t to sigma t + 1."""
        sigmas = self.sigmas.double().numpy()
        polynomial = np.polynomial.Polynomial([1.0])
        for other in range(order):
            if other != current_order:
                root = sigmas[t - other]
                polynomial *= np.polynomial.Polynomial([-root, 1.0]) / (
                    sigmas[t - current_order] - root
                )
        integral = polynomial.integ()
        return float(integral(sigmas[t + 1]) - integral(sigmas[t]))


def build_scheduler(
    sampler: str,
    *,
    num_steps: int,
    prediction_type: str,
    zero_terminal_snr: bool,
    device: torch.device,
) -> Any:
    """Return diffusers' scheduler for a sampler's name, its timesteps set.

    Under `zero_terminal_snr` it starts at the last timestep of the rescaled schedule, as the
    network was trained.

    Raises: UnknownName.
    """
    name = SAMPLERS.canonical(sampler)
    scheduler_class = SAMPLERS.get(name)
    settings = _AS_PUBLISHED | {"prediction_type": prediction_type} | _OWN.get(name, {})
    accepted = inspect.signature(scheduler_class.__init__).parameters
    if zero_terminal_snr:
        settings |= {"timestep_spacing": "trailing"}
        if "rescale_betas_zero_snr" in accepted:
            settings["rescale_betas_zero_snr"] = True
        else:
            settings["trained_betas"] = _betas_to_zero_snr()
    with warnings.catch_warnings():
        # diffusers hands tensors to NumPy in an old way, and would drop one form of the solver.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*dpmsolver.*", FutureWarning)
        scheduler = scheduler_class(**{k: v for k, v in settings.items() if k in accepted})
        scheduler.set_timesteps(num_steps, device=device)
    return scheduler


def _betas_to_zero_snr() -> np.ndarray:
    """Return the betas of the rescaled schedule, its last alpha-bar a little above 0."""
    alphas_bar_T = alphas_cumprod(zero_terminal_snr=True).double().numpy()
    alphas_bar_T[-1] = LEAST_ALPHA_BAR
    before_T = np.concatenate([[1.0], alphas_bar_T[:-1]])
    betas_T: np.ndarray = (1.0 - alphas_bar_T / before_T).astype(np.float32)
    return betas_T
