"""Pictures drawn from a model, during training and by `sdft sample`.

In: a request and the model's parts. Out: one RGB picture.
The steps are those of diffusers' StableDiffusionPipeline, so both give the same picture. Contexts
come from outside, because prompts are encoded exactly as captions are in training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdft.models.vae import decode
from sdft.registry import Registry
from sdft.train.schedule import BETA_END, BETA_START, NUM_TIMESTEPS

_SCHEDULERS = "diffusers.schedulers.scheduling_"
SAMPLERS = Registry(
    "sampler",
    {
        "ddim": f"{_SCHEDULERS}ddim:DDIMScheduler",
        "pndm": f"{_SCHEDULERS}pndm:PNDMScheduler",
        "lms": f"{_SCHEDULERS}lms_discrete:LMSDiscreteScheduler",
        "euler": f"{_SCHEDULERS}euler_discrete:EulerDiscreteScheduler",
        "euler_a": f"{_SCHEDULERS}euler_ancestral_discrete:EulerAncestralDiscreteScheduler",
        "heun": f"{_SCHEDULERS}heun_discrete:HeunDiscreteScheduler",
        "dpm_2": f"{_SCHEDULERS}k_dpm_2_discrete:KDPM2DiscreteScheduler",
        "dpm_2_a": f"{_SCHEDULERS}k_dpm_2_ancestral_discrete:KDPM2AncestralDiscreteScheduler",
        "dpmsolver": f"{_SCHEDULERS}dpmsolver_multistep:DPMSolverMultistepScheduler",
        "dpmsolver++": f"{_SCHEDULERS}dpmsolver_multistep:DPMSolverMultistepScheduler",
        "dpmsingle": f"{_SCHEDULERS}dpmsolver_singlestep:DPMSolverSinglestepScheduler",
        "k_lms": f"{_SCHEDULERS}lms_discrete:LMSDiscreteScheduler",
        "k_euler": f"{_SCHEDULERS}euler_discrete:EulerDiscreteScheduler",
        "k_euler_a": f"{_SCHEDULERS}euler_ancestral_discrete:EulerAncestralDiscreteScheduler",
        "k_dpm_2": f"{_SCHEDULERS}k_dpm_2_discrete:KDPM2DiscreteScheduler",
        "k_dpm_2_a": f"{_SCHEDULERS}k_dpm_2_ancestral_discrete:KDPM2AncestralDiscreteScheduler",
    },
)

_OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    "PNDMScheduler": {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1},
    "EulerDiscreteScheduler": {"steps_offset": 1},
    "EulerAncestralDiscreteScheduler": {"steps_offset": 1},
    "LMSDiscreteScheduler": {"steps_offset": 1},
    "HeunDiscreteScheduler": {"steps_offset": 1},
    "KDPM2DiscreteScheduler": {"steps_offset": 1},
    "KDPM2AncestralDiscreteScheduler": {"steps_offset": 1},
    "DPMSolverMultistepScheduler": {"steps_offset": 1},
}
"""Source: the scheduler configs of the published SD 1.x and 2.x folders. Latents are never
clamped: clip_sample is a habit of pixel-space models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """One picture to draw."""

    prompt: str
    negative_prompt: str = ""
    width: int = 512
    """Pixels, a multiple of 8."""
    height: int = 512
    seed: int = 0
    steps: int = 30
    scale: float = 7.5
    """Classifier-free guidance; 1 or less switches it off."""
    sampler: str = "ddim"


def build_scheduler(sampler: str, *, prediction_type: str, zero_terminal_snr: bool) -> Any:
    """Return diffusers' scheduler for a sampler's name.

    Raises: UnknownName.
    """
    scheduler_class = SAMPLERS.get(sampler)
    settings: dict[str, Any] = {
        "num_train_timesteps": NUM_TIMESTEPS,
        "beta_start": BETA_START,
        "beta_end": BETA_END,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction_type,
    }
    settings |= _OWN_SETTINGS.get(scheduler_class.__name__, {})
    if sampler == "dpmsolver++":
        settings["algorithm_type"] = "dpmsolver++"
    accepted = inspect.signature(scheduler_class.__init__).parameters
    if zero_terminal_snr:
        settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return scheduler_class(**{name: value for name, value in settings.items() if name in accepted})


@torch.no_grad()
def draw(
    request: SampleRequest,
    *,
    unet: Any,
    vae: Any,
    contexts_of: Callable[[str], Tensor],
    prediction_type: str,
    zero_terminal_snr: bool,
    device: torch.device,
) -> np.ndarray:
    """Draw one picture.

    `contexts_of` encodes one text to [1, S, D]. The starting noise is drawn on the CPU, so a seed
    gives the same picture on every device, up to the device's arithmetic.

    Shapes: [H, W, 3] uint8 out.
    """
    scheduler = build_scheduler(
        request.sampler, prediction_type=prediction_type, zero_terminal_snr=zero_terminal_snr
    )
    scheduler.set_timesteps(request.steps, device=device)
    draws = torch.Generator().manual_seed(request.seed)
    shape = (1, 4, request.height // 8, request.width // 8)
    guided = request.scale > 1.0
    contexts_BSD = _contexts(request, contexts_of, guided=guided).to(device, unet.dtype)
    latents_BCHW = torch.randn(shape, generator=draws).to(device, unet.dtype)
    latents_BCHW = latents_BCHW * scheduler.init_noise_sigma
    extras = _step_extras(scheduler, draws)
    for timestep in scheduler.timesteps:
        doubled_BCHW = torch.cat([latents_BCHW] * 2) if guided else latents_BCHW
        doubled_BCHW = scheduler.scale_model_input(doubled_BCHW, timestep)
        noise_BCHW = unet(doubled_BCHW, timestep, contexts_BSD, return_dict=False)[0]
        if guided:
            without, with_prompt = noise_BCHW.chunk(2)
            noise_BCHW = without + request.scale * (with_prompt - without)
        latents_BCHW = scheduler.step(noise_BCHW, timestep, latents_BCHW, **extras).prev_sample
    pixels_BCHW = decode(vae, latents_BCHW.to(vae.dtype))
    pixels_HWC = (pixels_BCHW[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    return (pixels_HWC * 255).round().astype(np.uint8)


def _contexts(
    request: SampleRequest, contexts_of: Callable[[str], Tensor], *, guided: bool
) -> Tensor:
    """Return [2, S, D] (negative, positive), or [1, S, D] without guidance.

    A longer text than the other's is matched by repeating the shorter one's encoding length: both
    are encoded with the same number of chunks by `contexts_of`.
    """
    positive_1SD = contexts_of(request.prompt)
    if not guided:
        return positive_1SD
    return torch.cat([contexts_of(request.negative_prompt), positive_1SD])


def _step_extras(scheduler: Any, draws: torch.Generator) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    return {"generator": draws} if "generator" in accepted else {}
