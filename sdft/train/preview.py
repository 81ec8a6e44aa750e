"""Pictures drawn from a model, during training and by `sdft sample`.

In: a request and the model's parts. Out: one RGB picture.
The steps are those of diffusers' StableDiffusionPipeline, so both give the same picture. Contexts
come from outside, because prompts are encoded exactly as captions are in training.

Shapes: B batch (without and with the prompt), C latent channels, H W latent cells, S tokens,
D text width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdft.models.vae import LATENT_CHANNELS, PIXELS_PER_CELL, decode, pixels_to_uint8
from sdft.train.samplers import SAMPLERS, build_scheduler

__all__ = ["SAMPLERS", "SampleRequest", "draw", "draw_latents", "picture_of"]


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

    `contexts_of` encodes one text to [1, S, D], every text to the same S. No generator but one of
    its own is drawn from, on the CPU: a seed gives the same picture on every device, up to the
    device's arithmetic, and drawing changes nothing in a run.

    Shapes: [H, W, 3] uint8 out.
    """
    latents_BCHW = draw_latents(
        request,
        unet=unet,
        contexts_of=contexts_of,
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
        device=device,
    )
    return picture_of(latents_BCHW, vae)


@torch.no_grad()
def draw_latents(
    request: SampleRequest,
    *,
    unet: Any,
    contexts_of: Callable[[str], Tensor],
    prediction_type: str,
    zero_terminal_snr: bool,
    device: torch.device,
) -> Tensor:
    """Return the latents of one picture, never clamped; shape [1, C, H, W]."""
    scheduler = build_scheduler(
        request.sampler,
        num_steps=request.steps,
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
        device=device,
    )
    draws = torch.Generator().manual_seed(request.seed)
    cells = (request.height // PIXELS_PER_CELL, request.width // PIXELS_PER_CELL)
    guided = request.scale > 1.0
    contexts_BSD = _contexts(request, contexts_of, guided=guided).to(device, unet.dtype)
    # In float32 whatever the network is in: a sampler takes small differences of large numbers.
    latents_BCHW: Tensor = torch.randn((1, LATENT_CHANNELS, *cells), generator=draws)
    latents_BCHW = latents_BCHW.to(device) * float(scheduler.init_noise_sigma)
    extras = _step_extras(scheduler, draws)
    for timestep in scheduler.timesteps:
        doubled_BCHW = torch.cat([latents_BCHW] * 2) if guided else latents_BCHW
        doubled_BCHW = scheduler.scale_model_input(doubled_BCHW, timestep).to(unet.dtype)
        found_BCHW = unet(doubled_BCHW, timestep, contexts_BSD, return_dict=False)[0].float()
        if guided:
            without_BCHW, with_BCHW = found_BCHW.chunk(2)
            found_BCHW = without_BCHW + request.scale * (with_BCHW - without_BCHW)
        latents_BCHW = scheduler.step(found_BCHW, timestep, latents_BCHW, **extras).prev_sample
    return latents_BCHW


def picture_of(latents_1CHW: Tensor, vae: Any) -> np.ndarray:
    """Decode one picture; what is not a number becomes black. Shapes: [H, W, 3] uint8 out."""
    pixels_BCHW = decode(vae, latents_1CHW.to(vae.dtype)).float()
    rgb_HWC: np.ndarray = pixels_to_uint8(torch.nan_to_num(pixels_BCHW, nan=-1.0))[0]
    return rgb_HWC


def _contexts(
    request: SampleRequest, contexts_of: Callable[[str], Tensor], *, guided: bool
) -> Tensor:
    """Return [2, S, D] (negative, positive), or [1, S, D] without guidance."""
    positive_1SD = contexts_of(request.prompt)
    if not guided:
        return positive_1SD
    return torch.cat([contexts_of(request.negative_prompt), positive_1SD])


def _step_extras(scheduler: Any, draws: torch.Generator) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    return {"generator": draws} if "generator" in accepted else {}
