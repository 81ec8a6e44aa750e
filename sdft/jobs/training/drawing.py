"""Draws pictures with the networks of a bundle, prompts being read as captions are in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdft.config.prompts import DEFAULT_SCALE, DEFAULT_STEPS, Prompt
from sdft.formats.caption_reader import CaptionReader
from sdft.jobs.training.networks import text_reader
from sdft.models.bundle import ModelBundle
from sdft.streams import seed64
from sdft.train.preview import SampleRequest, draw_latents, pictures_of
from sdft.train.step import EncodeText

SEED_BITS = 31
"""A drawn seed is so short that a person can type it."""


@dataclass(frozen=True, kw_only=True)
class Drawer:
    """Holds what every picture of one model needs."""

    bundle: ModelBundle
    unet: Any
    encode_text: EncodeText
    reader: CaptionReader
    """Reads prompts as captions are read in training; brackets are always weights, as in
    sd-scripts' samples."""
    zero_terminal_snr: bool
    device: torch.device

    @classmethod
    def of_bundle(
        cls,
        bundle: ModelBundle,
        *,
        clip_skip: int | None,
        max_token_length: int,
        device: torch.device,
        zero_terminal_snr: bool = False,
    ) -> Drawer:
        """Return a drawer for networks that are on their device; no gradient is kept."""
        return cls(
            bundle=bundle,
            unet=bundle.unet,
            encode_text=text_reader(bundle, bundle.text_encoder, clip_skip=clip_skip, trains=False),
            reader=CaptionReader(
                tokenizer=bundle.tokenizer, max_token_length=max_token_length, weighted=True
            ),
            zero_terminal_snr=zero_terminal_snr,
            device=device,
        )

    def contexts_of(self, text: str) -> Tensor:
        """Return a text's context; shape [1, S, D]."""
        read = self.reader.read(text)
        ids_BKS = torch.tensor([read.ids_KS], device=self.device)
        if read.weights_KS is None:
            return self.encode_text(ids_BKS)
        return self.encode_text(ids_BKS, torch.tensor([read.weights_KS], device=self.device))

    def latents(self, requests: Sequence[SampleRequest]) -> Tensor:
        """Return the latents of requests that differ in prompts and seeds; shape [N, C, H, W]."""
        return draw_latents(
            requests,
            unet=self.unet,
            contexts_of=self.contexts_of,
            prediction_type=self.bundle.prediction_type,
            zero_terminal_snr=self.zero_terminal_snr,
            device=self.device,
        )

    def draw(self, request: SampleRequest) -> np.ndarray:
        """Draw one picture; shape [H, W, 3] uint8."""
        rgb_HW3: np.ndarray = self.draw_together([request])[0]
        return rgb_HW3

    def draw_together(self, requests: Sequence[SampleRequest]) -> np.ndarray:
        """Draw pictures that differ in prompts and seeds as one batch; shape [N, H, W, 3] uint8.

        Takes the memory of a batch of so many, twice as many with guidance.
        """
        return pictures_of(self.latents(requests), self.bundle.vae)

    def draw_all(self, requests: Sequence[SampleRequest]) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Give latents and pixels of each request.

        The VAE is on the device only while it decodes: during training its place is needed.
        """
        all_latents = [self.latents([request]) for request in requests]
        vae = self.bundle.vae
        home = vae.device
        vae.to(self.device)
        try:
            for latents_1CHW in all_latents:
                yield latents_1CHW, pictures_of(latents_1CHW, vae)[0]
        finally:
            vae.to(home)


def requests_of(
    prompts: Sequence[Prompt], *, resolution_px: int, sampler: str, seed: int
) -> tuple[SampleRequest, ...]:
    """Return what to draw, with all that the prompts leave open.

    A prompt without a seed gets one that follows from `seed` and its place in the file, so that it
    is the same each time.
    """
    return tuple(
        request_of(
            prompt,
            resolution_px=resolution_px,
            sampler=sampler,
            seed=seed64(seed, "sample", number) % 2**SEED_BITS,
        )
        for number, prompt in enumerate(prompts)
    )


def request_of(prompt: Prompt, *, resolution_px: int, sampler: str, seed: int) -> SampleRequest:
    """Return what to draw for one prompt; what it does not say is taken from here."""
    steps, scale = prompt.sample_steps, prompt.scale
    return SampleRequest(
        prompt=prompt.prompt,
        negative_prompt=prompt.negative_prompt,
        width=prompt.width or resolution_px,
        height=prompt.height or resolution_px,
        seed=seed if prompt.seed is None else prompt.seed,
        steps=DEFAULT_STEPS if steps is None else steps,
        scale=DEFAULT_SCALE if scale is None else scale,
        sampler=prompt.sample_sampler or sampler,
    )


@contextmanager
def resting(*modules: torch.nn.Module) -> Iterator[None]:
    """Put networks in evaluation mode for a while and then back as they were, part by part."""
    modes = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
