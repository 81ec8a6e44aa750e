"""Trains the tiny model's VAE: reconstruction, edges, colours, a little of the divergence.

B batch, C latent channels, H W latent height and width.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sdft.models.vae import LATENT_SCALE
from tests.recipes.muon import Muon
from tests.recipes.tiny_recipe import (
    CPU_SHARE,
    Pictures,
    Recipe,
    autocast,
    rate_at,
    stepping,
)

KL_WEIGHT = 1e-6
EDGE_WEIGHT = 0.5
"""Of the differences between neighbouring pixels: it keeps corners sharp."""
WIDE_WEIGHT = 2.0
"""Of the mean difference of each latent cell's pixels: without it colours come long after edges."""
BATCH = 64
RATE = 3e-3
NUM_PICTURES = 8000
LAST_PX = 64
"""Side of what it is shown in the end; its pictures are drawn twice as large."""
FIRST_PX = 32
SHARE_AT_FIRST_PX = 0.75
"""Of the steps. Colours and edges are learnt as well on a quarter of the pixels."""
FIRST_LOG_VARIANCE = -6.0


def closer_or_whole(rgb_B3HW: Tensor, side: int) -> Tensor:
    """Return half of the pictures whole, and of the others a quarter at twice the scale.

    So the VAE sees edges, dots and stripes in two sizes for the price of the smaller.
    """
    twice = functional.avg_pool2d(rgb_B3HW.float(), rgb_B3HW.shape[-1] // (2 * side))
    half = len(twice) // 2
    across, down = torch.randint(0, side + 1, (2, 1), device=twice.device)
    inner = torch.arange(side, device=twice.device)
    parts = twice[:half, :, down + inner][..., across + inner]
    return torch.cat((parts, functional.avg_pool2d(twice[half:], 2)))


def pixels_of(rgb_N3HW: Tensor) -> Tensor:
    return rgb_N3HW.float() / 127.5 - 1


def train_vae(recipe: Recipe, pictures: Pictures, num_steps: int) -> None:
    device, vae = recipe.device, recipe.networks["vae"]
    weights = list(vae.parameters())
    batch = BATCH if device.type == "cuda" else BATCH // CPU_SHARE
    rate = torch.tensor(0.0, device=device)
    optimizer = Muon(weights, rate)

    def step(side: int) -> Tensor:
        chosen_B = torch.randint(0, len(pictures), (batch,), device=device)
        pixels_B3HW = pixels_of(closer_or_whole(pictures.rgb_N3HW[chosen_B], side))
        with autocast(device, is_large=True):
            moments = vae.quant_conv(vae.encoder(pixels_B3HW))
            mean, log_variance = moments.float().chunk(2, dim=1)
            log_variance = log_variance.clamp(-30, 20)
            latents = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            drawn = vae.decoder(vae.post_quant_conv(latents)).float()
        difference = drawn - pixels_B3HW
        edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        wide = functional.avg_pool2d(difference, 8).abs().mean()
        loss = difference.abs().mean() + 2 * (difference**2).mean()
        loss = loss + EDGE_WEIGHT * edges + WIDE_WEIGHT * wide
        optimizer.zero_grad(set_to_none=False)
        (loss + KL_WEIGHT * divergence).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()
        return (difference.detach() ** 2).mean()

    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    if recipe.state["step"]:
        optimizer.load_state_dict(recipe.state["optimizer"])
    else:
        # With noise as large as the latents are at first, colours are learnt long after brightness.
        vae.quant_conv.bias.data[vae.config.latent_channels :] = FIRST_LOG_VARIANCE
    change = int(SHARE_AT_FIRST_PX * num_steps)
    go = stepping(lambda: step(FIRST_PX), device)
    for number in range(recipe.state["step"], num_steps):
        if number == max(change, recipe.state["step"]):
            go = stepping(lambda: step(LAST_PX), device)
        rate.fill_(rate_at(number, number / num_steps, RATE))
        error = go()
        if number % 20 == 0:
            recipe.wait_while_held()
        if number % 100 == 99:
            recipe.log(vae_step=number + 1, psnr_db=10 * math.log10(4 / float(error)))
        if recipe.is_time_to_save():
            recipe.save_state("vae", number + 1, 0.0, optimizer=optimizer.state_dict())
        if recipe.is_over():
            break
    bake_scale(recipe, pictures)
    recipe.save("vae", vae.state_dict())
    recipe.state = {"stage": "unet", "step": 0, "began_s": time.monotonic() - recipe.started_s}
    recipe.save_state("unet", 0, recipe.state["began_s"])


@torch.no_grad()
def means_of(vae: Any, rgb_N3HW: Tensor) -> Tensor:
    parts = [
        vae.quant_conv(vae.encoder(pixels_of(part))).chunk(2, dim=1)[0]
        for part in rgb_N3HW.split(250)
    ]
    return torch.cat(parts)


@torch.no_grad()
def bake_scale(recipe: Recipe, pictures: Pictures) -> None:
    """Let the latents, times the scale of Stable Diffusion, have mean 0 and variance 1."""
    vae = recipe.networks["vae"].eval()
    few_N3HW = functional.avg_pool2d(pictures.rgb_N3HW[:500].float(), 2)
    latents_NCHW = means_of(vae, few_N3HW)
    shift_C = latents_NCHW.mean(dim=(0, 2, 3))
    factor_C = 1 / (LATENT_SCALE * latents_NCHW.std(dim=(0, 2, 3)))
    channels = len(shift_C)
    into, out = vae.quant_conv, vae.post_quant_conv
    into.bias[:channels] = (into.bias[:channels] - shift_C) * factor_C
    into.weight[:channels] *= factor_C[:, None, None, None]
    into.bias[channels:] += 2 * factor_C.log()
    out.bias += (out.weight[:, :, 0, 0] * shift_C).sum(dim=1)
    out.weight /= factor_C[None, :, None, None]
    again = means_of(vae, few_N3HW) * LATENT_SCALE
    recipe.log(latent_mean=float(again.mean()), latent_std=float(again.std()))


@torch.no_grad()
def held_out_psnr(recipe: Recipe, pictures: Pictures) -> float:
    vae = recipe.networks["vae"]
    pixels = pixels_of(pictures.rgb_N3HW)
    drawn = vae.decode(means_of(vae, pictures.rgb_N3HW)).sample.clamp(-1, 1)
    errors_N = ((drawn - pixels) ** 2).mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / errors_N)).mean())
