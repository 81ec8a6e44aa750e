"""Trains the tiny Stable Diffusion from nothing, on pictures that it draws itself.

    python tests/recipes/train_tiny.py OUT_FOLDER [--seconds 400] [--vae-steps 8000] [--resume]

First the VAE (reconstruction, edges, a little of the Kullback-Leibler term), then the U-Net and the
text encoder on its latents, with captions left out now and then for guidance. On a GPU each step is
one CUDA graph. The pictures follow from the seed; what is computed differs in the last bits from
one device to another. A CPU takes hours or days where a GPU takes minutes.

OUT_FOLDER/{vae,unet,text_encoder}.safetensors (float32; the last two are averages over the steps),
log.jsonl and state.pt are renewed every 30 s. With --resume and the same other options training
goes on from state.pt; --seconds counts what went before. While a file named by --hold exists,
training holds still, so that something else can be timed on the same device. finish_tiny.py makes
the package's model of the result.

B batch, C latent channels, H W latent height and width, S tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from sdft.formats.clip_tokens import ClipTokenizer
from sdft.models.text import text_state_dict
from sdft.models.tiny.drawing import draw
from sdft.models.tiny.networks import SIDE_PX, new_networks
from sdft.models.tiny.scenes import caption_of, draw_scene
from sdft.models.vae import LATENT_SCALE
from sdft.train.schedule import alphas_cumprod

KL_WEIGHT = 1e-6
EDGE_WEIGHT = 0.5
"""Of the differences between neighbouring pixels: it keeps corners sharp."""
WIDE_WEIGHT = 2.0
"""Of the mean difference of each latent cell's pixels: without it colours come long after edges."""
DROPOUT = 0.1
"""Share of the captions that are left out."""
AVERAGE_DECAY = 0.999
SAVE_EVERY_S = 30.0
VAE_BATCH, UNET_BATCH = 64, 256
CPU_SHARE = 8
"""A CPU takes batches so many times smaller."""
VAE_PICTURES = 8000
VAE_PX = 64
"""Side of what the VAE is shown in the end; its pictures are drawn twice as large."""
VAE_FIRST_PX = 32
SHARE_AT_FIRST_PX = 0.75
"""Of the VAE's steps. Colours and edges are learnt as well on a quarter of the pixels."""
FIRST_LOG_VARIANCE = -6.0
VAE_RATE, UNET_RATE = 1e-3, 1e-3
SNR_GAMMA = 5.0
"""Of the weights min(SNR, gamma) / SNR, which learn colours and shapes sooner than grain.

Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023."""
WARM_UP = 200
RESUME_STRIDE = 1009


class Pictures:
    """Scenes with their captions, drawn once and kept on the device."""

    def __init__(self, number: int, *, seed: int, side_px: int, device: torch.device) -> None:
        scenes = [draw_scene(seed, index) for index in range(number)]
        parts = [
            draw(scenes[start : start + 500], width=side_px, height=side_px, device=device)
            for start in range(0, number, 500)
        ]
        self.rgb_N3HW = torch.cat(parts)
        tokenizer = ClipTokenizer("eos")
        captions = [caption_of(scene, seed, index) for index, scene in enumerate(scenes)]
        known = {text: tokenizer.chunks(text, 75)[0] for text in {"", *captions}}
        self.ids_NS = torch.tensor([known[text] for text in captions], device=device)
        self.empty_S = torch.tensor(known[""], device=device)

    def __len__(self) -> int:
        return len(self.rgb_N3HW)


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


class Recipe:
    """Holds everything, says how it goes, saves what there is."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.out: Path = arguments.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.hold: Path | None = arguments.hold
        self.state: dict[str, Any] = {"stage": "vae", "step": 0, "spent_s": 0.0, "began_s": 0.0}
        if arguments.resume:
            self.state = torch.load(self.out / "state.pt", map_location=self.device)
        # Resumed steps draw other numbers than the steps before them.
        torch.manual_seed(arguments.seed + RESUME_STRIDE * self.state["step"])
        self.started_s = time.monotonic() - self.state["spent_s"]
        self.deadline_s = self.started_s + arguments.seconds
        self.networks = {name: one.to(self.device).train() for name, one in new_networks().items()}
        for name, weights in self.state.get("networks", {}).items():
            self.networks[name].load_state_dict(weights)
        self.saved_s = time.monotonic()

    def log(self, **figures: Any) -> None:
        line = json.dumps({"s": round(time.monotonic() - self.started_s, 1), **figures})
        print(line, flush=True)
        with (self.out / "log.jsonl").open("a", encoding="ascii") as lines:
            lines.write(line + "\n")

    def wait_while_held(self) -> None:
        while self.hold is not None and self.hold.exists():
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            time.sleep(0.05)

    def is_over(self) -> bool:
        return time.monotonic() > self.deadline_s

    def is_time_to_save(self) -> bool:
        if time.monotonic() - self.saved_s < SAVE_EVERY_S:
            return False
        self.saved_s = time.monotonic()
        return True

    def save_state(self, stage: str, step: int, began_s: float, **more: Any) -> None:
        """Write what a resumed training needs, whole or not at all."""
        networks = {name: one.state_dict() for name, one in self.networks.items()}
        spent_s = time.monotonic() - self.started_s
        figures = {"stage": stage, "step": step, "spent_s": spent_s, "began_s": began_s}
        part = self.out / "state.part"
        torch.save({**figures, "networks": networks, **more}, part)
        part.replace(self.out / "state.pt")

    def save(self, name: str, weights: dict[str, Tensor]) -> None:
        plain = {key: one.detach().float().cpu().contiguous() for key, one in weights.items()}
        save_file(plain, self.out / f"{name}.safetensors")


def stepping(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Return the step as one CUDA graph where there is a GPU; it gives the same tensor each time.

    The step may read nothing from the device and must use the same tensors every time.
    """
    if device.type != "cuda":
        return step
    side: Any = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            loss = step()
    except RuntimeError as error:
        print(f"no CUDA graph, so steps take longer: {error}", flush=True)
        return step

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def adam(weights: list[torch.nn.Parameter], rate: Tensor, device: torch.device) -> Any:
    on_gpu = device.type == "cuda"
    return torch.optim.AdamW(
        weights, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True, capturable=on_gpu
    )


def restore(optimizer: Any, state: dict[str, Any], rate: Tensor) -> None:
    """Take over an optimizer's state; the rate stays the tensor that the steps read."""
    optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        group["lr"] = rate


def rate_at(step: int, share: float, top: float) -> float:
    """Rise over the first steps, then fall as a cosine; `share` of the training is done."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return top * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, share))) + 1e-6


def autocast(device: torch.device) -> Any:
    # A graph may keep no casts from outside of it.
    return torch.autocast(
        device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False
    )


def train_vae(recipe: Recipe, pictures: Pictures, num_steps: int) -> None:
    device, vae = recipe.device, recipe.networks["vae"]
    weights = list(vae.parameters())
    batch = VAE_BATCH if device.type == "cuda" else VAE_BATCH // CPU_SHARE
    rate = torch.tensor(0.0, device=device)
    optimizer = adam(weights, rate, device)

    def step(side: int) -> Tensor:
        chosen_B = torch.randint(0, len(pictures), (batch,), device=device)
        pixels_B3HW = pixels_of(closer_or_whole(pictures.rgb_N3HW[chosen_B], side))
        with autocast(device):
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
        restore(optimizer, recipe.state["optimizer"], rate)
    else:
        # With noise as large as the latents are at first, colours are learnt long after brightness.
        vae.quant_conv.bias.data[vae.config.latent_channels :] = FIRST_LOG_VARIANCE
    change = int(SHARE_AT_FIRST_PX * num_steps)
    go = stepping(lambda: step(VAE_FIRST_PX), device)
    for number in range(recipe.state["step"], num_steps):
        if number == max(change, recipe.state["step"]):
            go = stepping(lambda: step(VAE_PX), device)
        rate.fill_(rate_at(number, number / num_steps, VAE_RATE))
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
    optimizer = adam(weights, rate, device)
    alphas_bar_T = alphas_cumprod().to(device)
    weights_T = (SNR_GAMMA * (1 - alphas_bar_T) / alphas_bar_T).clamp(max=1)
    batch = UNET_BATCH if device.type == "cuda" else UNET_BATCH // CPU_SHARE

    def step() -> Tensor:
        chosen_B = torch.randint(0, len(pictures), (batch,), device=device)
        latents_BCHW = latents_NCHW[chosen_B].float()
        dropped_B1 = torch.rand(batch, 1, device=device) < DROPOUT
        ids_BS = torch.where(dropped_B1, pictures.empty_S, pictures.ids_NS[chosen_B])
        timesteps_B = torch.randint(0, 1000, (batch,), device=device)
        noise_BCHW = torch.randn_like(latents_BCHW)
        alphas_bar = alphas_bar_T[timesteps_B].view(-1, 1, 1, 1)
        noisy_BCHW = alphas_bar.sqrt() * latents_BCHW + (1 - alphas_bar).sqrt() * noise_BCHW
        with autocast(device):
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
        restore(optimizer, recipe.state["optimizer"], rate)
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
        rate.fill_(rate_at(number, max(share, number / num_steps), UNET_RATE))
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


def pictures_of(recipe: Recipe, number: int, seed: int, side_px: int) -> Pictures:
    return Pictures(number, seed=seed, side_px=side_px, device=recipe.device)


def main(arguments: argparse.Namespace) -> None:
    recipe = Recipe(arguments)
    first = {"seed": arguments.seed, "pictures": arguments.pictures}
    recipe.log(**first, device=str(recipe.device))
    if recipe.state["stage"] == "vae":
        number = min(VAE_PICTURES, arguments.pictures)
        train_vae(
            recipe, pictures_of(recipe, number, arguments.seed, 2 * VAE_PX), arguments.vae_steps
        )
    recipe.networks["vae"].eval()
    held_out = pictures_of(recipe, min(500, arguments.pictures), arguments.seed + 1, SIDE_PX)
    recipe.log(held_out_psnr_db=held_out_psnr(recipe, held_out))
    pictures = pictures_of(recipe, arguments.pictures, arguments.seed, SIDE_PX)
    latents_NCHW = means_of(recipe.networks["vae"], pictures.rgb_N3HW) * LATENT_SCALE
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
