"""Pictures drawn from a model, during training and by `sdft sample`.

In: requests and the model's parts. Out: RGB pictures.
The steps are those of diffusers' StableDiffusionPipeline, so both give the same picture. Contexts
come from outside, because prompts are encoded exactly as captions are in training.

Shapes: N pictures, B batch (of all without and with the prompt), C latent channels, H W latent
cells, S tokens, D text width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdft.models.vae import LATENT_CHANNELS, PIXELS_PER_CELL, decode, pixels_to_uint8
from sdft.train.samplers import SAMPLERS, build_scheduler

__all__ = ["SAMPLERS", "SampleRequest", "draw_latents", "pictures_of"]


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


@torch.no_grad()
def draw_latents(
    requests: Sequence[SampleRequest],
    *,
    unet: Any,
    contexts_of: Callable[[str], Tensor],
    prediction_type: str,
    zero_terminal_snr: bool,
    device: torch.device,
) -> Tensor:
    """Return the latents of pictures that differ in prompts and seeds only, never clamped.

    `contexts_of` encodes one text to [1, S, D], every text to the same S. No generator but one of
    its own for each picture is drawn from, on the CPU: a seed gives the same picture on every
    device and beside any others, up to the arithmetic of the device and the batch, and drawing
    changes nothing in a run.

    Shapes: [N, C, H, W] out.
    """
    request = requests[0]
    assert all(
        replace(one, prompt="", negative_prompt="", seed=0)
        == replace(request, prompt="", negative_prompt="", seed=0)
        for one in requests
    )
    scheduler = build_scheduler(
        request.sampler,
        num_steps=request.steps,
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
        device=device,
    )
    draws = [torch.Generator().manual_seed(one.seed) for one in requests]
    cells = (request.height // PIXELS_PER_CELL, request.width // PIXELS_PER_CELL)
    guided = request.scale > 1.0
    contexts_BSD = _contexts(requests, contexts_of, guided=guided).to(device, unet.dtype)
    # In float32 whatever the network is in: a sampler takes small differences of large numbers.
    latents_NCHW: Tensor = torch.cat(
        [torch.randn((1, LATENT_CHANNELS, *cells), generator=own) for own in draws]
    )
    latents_NCHW = latents_NCHW.to(device) * float(scheduler.init_noise_sigma)
    extras = _step_extras(scheduler, draws)
    for timestep in scheduler.timesteps:
        doubled_BCHW = torch.cat([latents_NCHW] * 2) if guided else latents_NCHW
        doubled_BCHW = scheduler.scale_model_input(doubled_BCHW, timestep).to(unet.dtype)
        found_BCHW = unet(doubled_BCHW, timestep, contexts_BSD, return_dict=False)[0].float()
        if guided:
            without_NCHW, with_NCHW = found_BCHW.chunk(2)
            found_BCHW = without_NCHW + request.scale * (with_NCHW - without_NCHW)
        latents_NCHW = scheduler.step(found_BCHW, timestep, latents_NCHW, **extras).prev_sample
    return latents_NCHW


def pictures_of(latents_NCHW: Tensor, vae: Any) -> np.ndarray:
    """Decode pictures; what is not a number becomes black. Shapes: [N, H, W, 3] uint8 out."""
    pixels_NCHW = decode(vae, latents_NCHW.to(vae.dtype)).float()
    return pixels_to_uint8(torch.nan_to_num(pixels_NCHW, nan=-1.0))


def _contexts(
    requests: Sequence[SampleRequest], contexts_of: Callable[[str], Tensor], *, guided: bool
) -> Tensor:
    """Return [2 N, S, D] (all negative, then all positive), or [N, S, D] without guidance."""
    texts = [one.negative_prompt for one in requests] if guided else []
    texts += [one.prompt for one in requests]
    return torch.cat([contexts_of(text) for text in texts])


def _step_extras(scheduler: Any, draws: list[torch.Generator]) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    return {"generator": draws} if "generator" in accepted else {}
