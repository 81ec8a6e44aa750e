"""Draws pictures with the networks of a bundle, prompts being read as captions are in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdft.jobs.training.networks import text_reader
from sdft.models.bundle import ModelBundle
from sdft.train.preview import SampleRequest, draw
from sdft.train.step import EncodeText


@dataclass(frozen=True, kw_only=True)
class Drawer:
    """Holds what every picture of one model needs."""

    bundle: ModelBundle
    unet: Any
    encode_text: EncodeText
    max_token_length: int
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
        """Return a drawer for networks that are on their device and not trained."""
        return cls(
            bundle=bundle,
            unet=bundle.unet,
            encode_text=text_reader(bundle, bundle.text_encoder, clip_skip=clip_skip, trains=False),
            max_token_length=max_token_length,
            zero_terminal_snr=zero_terminal_snr,
            device=device,
        )

    def contexts_of(self, text: str) -> Tensor:
        """Return a text's context; shape [1, S, D]."""
        chunks = self.bundle.tokenizer.chunks(text, self.max_token_length)
        return self.encode_text(torch.tensor([chunks], device=self.device))

    def draw(self, request: SampleRequest) -> np.ndarray:
        """Draw one picture; shape [H, W, 3] uint8."""
        return draw(
            request,
            unet=self.unet,
            vae=self.bundle.vae,
            contexts_of=self.contexts_of,
            prediction_type=self.bundle.prediction_type,
            zero_terminal_snr=self.zero_terminal_snr,
            device=self.device,
        )
