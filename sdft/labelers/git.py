"""GIT, with the remover of phrases about writing in the picture.

In: a transformers folder. Out: a Labeler. Source: reference, section 1.4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer

from sdft.labelers.captions import (
    CaptionChoice,
    Captioner,
    generation,
    load_model,
    load_pretrained,
    one_line,
    torch_dtype,
)
from sdft.labelers.records import Prepared, Words
from sdft.labelers.torch_device import torch_device

MAX_LENGTH = 50

_QUOTED = r"""(?:"\s?[^"]*"|'\s?(?:i'm)?[^']*'|\w+)"""
_PLACE = r"(?:\s?(?:is\s)?(?:on|in)\s(?:(?:the|her|his|their|him|its)\s)?\w+)?"

PHRASES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?:has|with|and) the (?:words?|letters?|name) {_QUOTED}{_PLACE}",
        rf"\b(?:with a sign )?that says the word {_QUOTED}(?: on it)?",
        rf"\b(?:with a sign )?that says ?{_QUOTED}(?: on it)?",
        r"\bwith the numbers? \d+ on (?:it|\w+ \w+)",
        r"\bwith the words? [\"']",
        r"\bthe words? \w+ on (?:it|\w+ \w+)",
        r"\bwords? \w+ on it",
        r"\bthat says ?[\"'](?: on it)?",
    )
)
"""What GIT makes up about letters in a picture. Of a quotation that never ends only the beginning
goes, since nobody knows how far it reaches."""


class GitCaptioner(Captioner):
    """A Labeler."""

    def __init__(self, folder: Path, choice: CaptionChoice, device: str) -> None:
        super().__init__("GIT", device)
        self._choice = choice
        dtype = torch_dtype(choice, device)
        self._model = load_model(AutoModelForCausalLM, folder, device=device, dtype=dtype)
        self._tokenizer = load_pretrained(AutoTokenizer, folder)
        self._images = load_pretrained(AutoImageProcessor, folder, backend="pil")
        prompt = (choice.prompt or "").strip()
        words = self._tokenizer(prompt, add_special_tokens=False).input_ids if prompt else []
        start = self._tokenizer.cls_token_id
        self._prompt_ids = torch.tensor([[start, *words]], device=device)

    def prepare(self, rgb_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        # Its size and crop only; normalising turns bytes into four times as many.
        found = self._images(
            images=[rgb_HWC],
            do_rescale=False,
            do_normalize=False,
            input_data_format="channels_last",
        )
        pixels_CHW = np.asarray(found["pixel_values"][0])
        return np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0).astype(np.uint8))

    def model_input(self, batch: Sequence[Prepared]) -> torch.Tensor:
        """Shapes: float [B, 3, H, W] out."""
        found = self._images(
            images=[image.pixels for image in batch],
            do_resize=False,
            do_center_crop=False,
            input_data_format="channels_last",
            return_tensors="pt",
        )
        pixels_BCHW: torch.Tensor = found["pixel_values"].to(self._device, self._model.dtype)
        return pixels_BCHW

    @torch.inference_mode()
    def label(self, batch: Sequence[Prepared]) -> list[Words]:
        lengths = {"max_length": self._choice.max_length or MAX_LENGTH}
        ids_BS = self._model.generate(
            pixel_values=self.model_input(batch),
            input_ids=self._prompt_ids.repeat(len(batch), 1),
            **generation(self._choice, [image.key for image in batch], lengths),
        )
        said = self._tokenizer.batch_decode(ids_BS, skip_special_tokens=True)
        remove = without_phrases if self._choice.remove_words else one_line
        return [(remove(text),) for text in said]


def open_git(folder: Path, choice: CaptionChoice, device: str) -> tuple[GitCaptioner, str]:
    """Return the captioner and a note where it runs elsewhere than asked. Raises: DataError."""
    device, note = torch_device(device)
    return GitCaptioner(folder, choice, device), note


def without_phrases(caption: str) -> str:
    """Return the caption without what it claims to be written in the picture."""
    for phrase in PHRASES:
        caption = phrase.sub("", caption)
    return one_line(caption).replace(" ,", ",").strip(" ,")
