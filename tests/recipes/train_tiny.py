"""Trains the tiny Stable Diffusion from nothing, on pictures that it draws itself.

    python tests/recipes/train_tiny.py OUT_FOLDER [--seconds 400] [--vae-steps 8000] [--resume]

First the VAE (reconstruction, edges, a little of the Kullback-Leibler term), then the U-Net and the
text encoder on its latents, with captions left out now and then for guidance. On a GPU each step is
one CUDA graph. The pictures follow from the seed; what is computed differs in the last bits from
one device to another. On a GPU it takes minutes. The package's model came from one CPU core:

    python tests/recipes/train_tiny.py OUT_FOLDER --pictures 16000 --vae-steps 3200 --seconds 5150

20 minutes for the VAE, 6 for the latents, an hour for 8,500 steps of the U-Net and text encoder.

OUT_FOLDER/{vae,unet,text_encoder}.safetensors (float32; the last two are averages over the steps),
log.jsonl and state.pt are renewed every 30 s. With --resume and the same other options training
goes on from state.pt; --seconds counts what went before. While a file named by --hold exists,
training holds still, so that something else can be timed on the same device. finish_tiny.py makes
the package's model of the result.

B batch, C latent channels, H W latent height and width, S tokens.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdft.models.text import text_state_dict
from sdft.models.tiny.scenes import SIDE_PX
from sdft.models.vae import LATENT_SCALE
from sdft.train.schedule import alphas_cumprod
from tests.recipes import tiny_vae
from tests.recipes.muon import Muon
from tests.recipes.tiny_recipe import (
    CPU_SHARE,
    Pictures,
    Recipe,
    autocast,
    pictures_of,
    rate_at,
    stepping,
)

DROPOUT = 0.1
"""Share of the captions that are left out."""
AVERAGE_DECAY = 0.999
BATCH = 256
RATE = 1e-2
SNR_GAMMA = 5.0
"""Of the weights min(SNR, gamma) / SNR, which learn colours and shapes sooner than grain.

Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023."""


class Averages:
    """Moving averages of weights: what is saved."""

    def __init__(self, weights: list[torch.nn.Parameter]) -> None:
        self._weights = weights
        self._averages = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def follow(self) -> None:
        torch._foreach_lerp_(self._averages, self._weights, 1 - AVERAGE_DECAY)

    @torch.no_grad()
    def restore(self, averages: list[Tensor]) -> None:
        torch._foreach_copy_(self._averages, averages)

    def state(self) -> list[Tensor]:
        return self._averages

    @torch.no_grad()
    def save(self, recipe: Recipe) -> None:
        held = [weight.detach().clone() for weight in self._weights]
        torch._foreach_copy_(self._weights, self._averages)
        recipe.save("unet", recipe.networks["unet"].state_dict())
        recipe.save("text_encoder", text_state_dict(recipe.networks["text_encoder"]))
        torch._foreach_copy_(self._weights, held)


def train_unet(  # noqa: PLR0915  its steps share a dozen tensors with the graph
    recipe: Recipe, pictures: Pictures, latents_NCHW: Tensor, num_steps: int
) -> None:
    device = recipe.device
    unet, text_encoder = recipe.networks["unet"], recipe.networks["text_encoder"]
    weights = [*unet.parameters(), *text_encoder.parameters()]
    averages = Averages(weights)
    rate = torch.tensor(0.0, device=device)
    optimizer = Muon(weights, rate)
    alphas_bar_T = alphas_cumprod().to(device)
    weights_T = (SNR_GAMMA * (1 - alphas_bar_T) / alphas_bar_T).clamp(max=1)
    batch = BATCH if device.type == "cuda" else BATCH // CPU_SHARE

    def step() -> Tensor:
        chosen_B = torch.randint(0, len(pictures), (batch,), device=device)
        latents_BCHW = latents_NCHW[chosen_B].float()
        dropped_B1 = torch.rand(batch, 1, device=device) < DROPOUT
        ids_BS = torch.where(dropped_B1, pictures.empty_S, pictures.ids_NS[chosen_B])
        timesteps_B = torch.randint(0, 1000, (batch,), device=device)
        noise_BCHW = torch.randn_like(latents_BCHW)
        alphas_bar = alphas_bar_T[timesteps_B].view(-1, 1, 1, 1)
        noisy_BCHW = alphas_bar.sqrt() * latents_BCHW + (1 - alphas_bar).sqrt() * noise_BCHW
        with autocast(device, is_large=False):
            contexts_BSD = text_encoder(ids_BS)[0]
            predicted = unet(noisy_BCHW, timesteps_B, contexts_BSD, return_dict=False)[0]
        errors_B = (predicted.float() - noise_BCHW).square().mean(dim=(1, 2, 3))
        loss = (errors_B * weights_T[timesteps_B]).mean()
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()
        averages.follow()
        return loss.detach()

    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    if recipe.state["step"]:
        optimizer.load_state_dict(recipe.state["optimizer"])
        averages.restore(recipe.state["averages"])
    go = stepping(step, device)
    started_s, held_s = recipe.started_s + recipe.state["began_s"], 0.0
    number, loss = recipe.state["step"], torch.tensor(math.nan)

    def save() -> None:
        averages.save(recipe)
        kept = {"optimizer": optimizer.state_dict(), "averages": averages.state()}
        recipe.save_state("unet", number, recipe.state["began_s"], **kept)

    while number < num_steps and not recipe.is_over():
        # The schedule follows the clock where it is not known how many steps there will be.
        share = (time.monotonic() - started_s) / max(1e-9, recipe.deadline_s - started_s)
        rate.fill_(rate_at(number, max(share, number / num_steps), RATE))
        loss = go()
        number += 1
        if number % 20 == 0:
            before_s = time.monotonic()
            recipe.wait_while_held()
            held_s += time.monotonic() - before_s
        if number % 250 == 0:
            recipe.log(unet_step=number, loss=float(loss), held_s=round(held_s, 1))
        if recipe.is_time_to_save():
            save()
    save()
    recipe.log(unet_step=number, loss=float(loss), done=True)


def latents_of(recipe: Recipe, pictures: Pictures, seed: int) -> Tensor:
    """Return the latents of all pictures; a resumed training finds them on disk."""
    path = recipe.out / "latents.safetensors"
    if recipe.state["step"] and path.exists():
        return load_file(path)["latents"].to(recipe.device)
    vae = recipe.networks["vae"].eval()
    held_out = pictures_of(recipe, min(500, len(pictures)), seed + 1, SIDE_PX)
    recipe.log(held_out_psnr_db=tiny_vae.held_out_psnr(recipe, held_out))
    latents_NCHW = tiny_vae.means_of(vae, pictures.rgb_N3HW) * LATENT_SCALE
    save_file({"latents": latents_NCHW.cpu().contiguous()}, path)
    return latents_NCHW


def main(arguments: argparse.Namespace) -> None:
    recipe = Recipe(arguments)
    first = {"seed": arguments.seed, "pictures": arguments.pictures}
    recipe.log(**first, device=str(recipe.device))
    if recipe.state["stage"] == "vae":
        number = min(tiny_vae.NUM_PICTURES, arguments.pictures)
        tiny_vae.train_vae(
            recipe,
            pictures_of(recipe, number, arguments.seed, 2 * tiny_vae.LAST_PX),
            arguments.vae_steps,
        )
    pictures = pictures_of(recipe, arguments.pictures, arguments.seed, SIDE_PX)
    latents_NCHW = latents_of(recipe, pictures, arguments.seed)
    pictures.rgb_N3HW = pictures.rgb_N3HW[:, :, :0, :0].clone()
    if recipe.device.type == "cuda":
        torch.cuda.empty_cache()
    train_unet(recipe, pictures, latents_NCHW, arguments.unet_steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--vae-steps", type=int, default=8000)
    parser.add_argument("--unet-steps", type=int, default=10**9)
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hold", type=Path)
    parser.add_argument("--resume", action="store_true")
    main(parser.parse_args())
