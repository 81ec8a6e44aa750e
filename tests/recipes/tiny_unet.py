"""Trains the tiny model's U-Net and text encoder on latents and captions.

B batch, C latent channels, H W latent height and width, S tokens, D text width, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sdft.models.text import text_state_dict
from sdft.train.schedule import alphas_cumprod
from tests.recipes.muon import Muon
from tests.recipes.tiny_recipe import (
    CPU_SHARE,
    Pictures,
    Recipe,
    autocast,
    rate_at,
    stepping,
)

DROPOUT = 0.1
"""Share of the captions that are left out."""
AVERAGE_DECAY = 0.999
BATCH = 256
RATE = 1e-2
CONTEXT_NOISE = 0.4
"""Most of the noise on what the text encoder says, as a share of its root mean square: what moves
a word a little, as fine-tuning does, is not to turn it into another."""
BIAS_WEIGHT = 0.3
ALIKE_WEIGHT = 0.1
APART = 0.9
"""How far other words are to lie from one another, as a share of how far the shapes do."""
OTHER_WORDS_BATCH = 8
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


def shaken(contexts_BSD: Tensor) -> Tensor:
    """Return contexts with noise of their own on each token and one for all of a caption.

    Each caption has noise of another strength.
    """
    noise = torch.randn_like(contexts_BSD) + torch.randn_like(contexts_BSD[:, :1])
    size_B11 = contexts_BSD.detach().square().mean(dim=(1, 2), keepdim=True).sqrt()
    share_B11 = CONTEXT_NOISE * torch.rand_like(size_B11)
    return contexts_BSD + noise * (0.5**0.5 * share_B11 * size_B11)


class Lesson:
    """What is learnt from: draws a batch at each call and returns its loss."""

    def __init__(self, recipe: Recipe, pictures: Pictures, latents_NCHW: Tensor) -> None:
        self._unet = recipe.networks["unet"]
        self._text_encoder = recipe.networks["text_encoder"]
        self._pictures = pictures
        self._latents_NCHW = latents_NCHW
        self._device = recipe.device
        self._batch = BATCH if recipe.device.type == "cuda" else BATCH // CPU_SHARE
        self._alphas_bar_T = alphas_cumprod().to(recipe.device)
        snr_T = self._alphas_bar_T / (1 - self._alphas_bar_T)
        self._weights_T = (SNR_GAMMA / snr_T).clamp(max=1)
        # A word that another took the place of tells nothing of what is drawn: it stays unknown.
        is_known_V1 = pictures.other_words.is_known_V1
        table_VD = self._text_encoder.get_input_embeddings().weight
        table_VD.register_hook(lambda gradient_VD: gradient_VD * is_known_V1)

    def loss(self) -> Tensor:
        device, batch, pictures = self._device, self._batch, self._pictures
        chosen_B = torch.randint(0, len(pictures), (batch,), device=device)
        latents_BCHW = self._latents_NCHW[chosen_B].float()
        captions_BS = pictures.ids_NS[chosen_B]
        dropped_B1 = torch.rand(batch, 1, device=device) < DROPOUT
        ids_BS = pictures.other_words.put_into(captions_BS)
        ids_BS = torch.where(dropped_B1, pictures.empty_S, ids_BS)
        timesteps_B = torch.randint(0, 1000, (batch,), device=device)
        noise_BCHW = torch.randn_like(latents_BCHW)
        alphas_bar = self._alphas_bar_T[timesteps_B].view(-1, 1, 1, 1)
        noisy_BCHW = alphas_bar.sqrt() * latents_BCHW + (1 - alphas_bar).sqrt() * noise_BCHW
        with autocast(device, is_large=False):
            contexts_BSD = self._text_encoder(ids_BS)[0]
            predicted = self._unet(
                noisy_BCHW, timesteps_B, shaken(contexts_BSD), return_dict=False
            )[0]
        errors_B = (predicted.float() - noise_BCHW).square().mean(dim=(1, 2, 3))
        return (errors_B * self._weights_T[timesteps_B]).mean() + self._loss_of_other_words()

    def _loss_of_other_words(self) -> Tensor:
        """Return how far from the middle of all shapes other words are read, and how much alike.

        Without the first they are read as one of the shapes, the same one whatever their picture
        shows. Without the second they are all read as one, and who teaches one teaches them all.
        """
        words = self._pictures.other_words
        few_BS = self._pictures.nameless_ids_NS
        chosen_B = torch.randint(0, len(few_BS), (OTHER_WORDS_BATCH,), device=self._device)
        few_BS = few_BS[chosen_B]
        with torch.no_grad():
            known_KBSD = torch.stack(
                [self._text_encoder(ids_BS)[0] for ids_BS in words.known_for(few_BS)]
            )
        one_BSD, another_BSD = (self._text_encoder(words.put_into(few_BS))[0] for _ in range(2))
        return loss_of_other_words(known_KBSD, one_BSD, another_BSD)


def loss_of_other_words(known_KBSD: Tensor, one_BSD: Tensor, another_BSD: Tensor) -> Tensor:
    """Return the loss of two other words in B captions; `known_KBSD` has each of K shapes there."""
    middle_BSD = known_KBSD.mean(dim=0)
    off_BSD = (one_BSD + another_BSD) / 2 - middle_BSD
    bias = off_BSD.square().mean() / middle_BSD.square().mean()
    spread = (known_KBSD - middle_BSD).square().mean().sqrt()
    # Two of one distribution lie further apart than from its middle, by the root of 2.
    apart_B = ((one_BSD - another_BSD).square().mean(dim=(1, 2)) / 2 + 1e-6).sqrt() / spread
    return BIAS_WEIGHT * bias + ALIKE_WEIGHT * (APART - apart_B).clamp(min=0).square().mean()


def train_text_alone(recipe: Recipe, lesson: Lesson, num_steps: int) -> None:
    """Let a new text encoder learn what the U-Net understands; the U-Net stays as it is.

    It finds words for things in some hundred steps; both together need thousands from nothing.
    """
    unet, text_encoder = recipe.networks["unet"], recipe.networks["text_encoder"]
    unet.requires_grad_(False)
    weights = list(text_encoder.parameters())
    rate = torch.tensor(0.0, device=recipe.device)
    go = stepping(stepper(lesson, weights, Muon(weights, rate)), recipe.device)
    for number in range(num_steps):
        rate.fill_(rate_at(number, number / num_steps, RATE))
        loss = go()
        if number % 50 == 49:
            recipe.log(text_step=number + 1, loss=float(loss))
    unet.requires_grad_(True)


def stepper(
    lesson: Lesson, weights: list[torch.nn.Parameter], optimizer: Muon
) -> Callable[[], Tensor]:
    """Return what takes one step and gives its loss."""
    for weight in weights:
        weight.grad = torch.zeros_like(weight)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = lesson.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()
        return loss.detach()

    return step


def train_unet(recipe: Recipe, lesson: Lesson, num_steps: int) -> None:
    weights = [*recipe.networks["unet"].parameters(), *recipe.networks["text_encoder"].parameters()]
    averages = Averages(weights)
    rate = torch.tensor(0.0, device=recipe.device)
    optimizer = Muon(weights, rate)
    step_alone = stepper(lesson, weights, optimizer)

    def step() -> Tensor:
        loss = step_alone()
        averages.follow()
        return loss

    if recipe.state["step"]:
        optimizer.load_state_dict(recipe.state["optimizer"])
        averages.restore(recipe.state["averages"])
    go = stepping(step, recipe.device)
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
