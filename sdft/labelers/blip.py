"""BLIP, base and large, through transformers' own class.

In: a transformers folder. Out: a Labeler. Source of the defaults: reference, section 1.3.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoTokenizer, BlipForConditionalGeneration

from sdft.files import read_text
from sdft.labelers.captions import (
    CaptionChoice,
    Captioner,
    generation,
    load_model,
    load_pretrained,
    one_line,
    torch_dtype,
)
from sdft.labelers.preprocess import normalised, stretched
from sdft.labelers.records import Prepared, Words
from sdft.labelers.torch_device import torch_device

PROMPT = "a picture of "
MAX_LENGTH = 75

DEFAULT_MEAN = (0.48145466, 0.4578275, 0.40821073)
DEFAULT_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures. Source: reference, section 1.3."""


class BlipCaptioner(Captioner):
    """A Labeler."""

    def __init__(self, folder: Path, choice: CaptionChoice, device: str) -> None:
        super().__init__("BLIP", device)
        self._choice = choice
        dtype = torch_dtype(choice, device)
        self._model = load_model(BlipForConditionalGeneration, folder, device=device, dtype=dtype)
        self._tokenizer = load_pretrained(AutoTokenizer, folder)
        self._side_px = int(self._model.config.vision_config.image_size)
        self._mean, self._std = _normalisation(folder)
        prompt = PROMPT if choice.prompt is None else choice.prompt
        # The model's own start token takes the place of the first, the end token is cut off.
        self._prompt_ids = self._tokenizer(prompt, return_tensors="pt").input_ids.to(device)

    def prepare(self, rgb_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return stretched(rgb_HWC, self._side_px, self._side_px)

    def model_input(self, batch: Sequence[Prepared]) -> torch.Tensor:
        """Shapes: float [B, 3, H, W] out."""
        levels_BHWC = np.stack([image.pixels for image in batch])
        pixels_BCHW = torch.from_numpy(normalised(levels_BHWC, self._mean, self._std))
        return pixels_BCHW.to(self._device, self._model.dtype)

    @torch.inference_mode()
    def label(self, batch: Sequence[Prepared]) -> list[Words]:
        lengths = {
            "max_length": self._choice.max_length or MAX_LENGTH,
            "min_length": self._choice.min_length,
        }
        ids_BS = self._model.generate(
            pixel_values=self.model_input(batch),
            input_ids=self._prompt_ids.repeat(len(batch), 1),
            **generation(self._choice, [image.key for image in batch], lengths),
        )
        num_prompt = self._prompt_ids.shape[1] - 1
        said = self._tokenizer.batch_decode(ids_BS[:, num_prompt:], skip_special_tokens=True)
        return [(one_line(text),) for text in said]


def open_blip(folder: Path, choice: CaptionChoice, device: str) -> tuple[BlipCaptioner, str]:
    """Return the captioner and a note where it runs elsewhere than asked. Raises: DataError."""
    device, note = torch_device(device)
    return BlipCaptioner(folder, choice, device), note


def _normalisation(
    folder: Path,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    file = folder / "preprocessor_config.json"
    settings = json.loads(read_text(file)) if file.is_file() else {}
    mean = settings.get("image_mean", DEFAULT_MEAN)
    std = settings.get("image_std", DEFAULT_STD)
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
