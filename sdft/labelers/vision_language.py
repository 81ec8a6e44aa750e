"""Any captioner that transformers' image-text-to-text class loads: BLIP-2, Florence-2, Qwen-VL,
LLaVA and its likes, such as JoyCaption.

In: a transformers folder and a prompt. Out: a Labeler. A prompt goes through the model's chat
template where it has one; a `{prompt}` in the prompt template marks its place otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

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
from sdft.labelers.records import Prepared, Words
from sdft.labelers.torch_device import torch_device

PROMPT = "Describe this image in one sentence."
FLORENCE_PROMPT = "<MORE_DETAILED_CAPTION>"
"""Florence-2 knows tasks, not questions."""

MAX_NEW_TOKENS = 256


class VisionLanguageCaptioner(Captioner):
    """A Labeler."""

    first_batches = (1, 8)

    def __init__(self, folder: Path, choice: CaptionChoice, device: str) -> None:
        self._choice = choice
        dtype = torch_dtype(choice, device)
        self._model = load_model(AutoModelForImageTextToText, folder, device=device, dtype=dtype)
        self._processor = load_processor(folder)
        tokenizer = self._processor.tokenizer
        # What is generated has to follow right behind the prompt, however long the others are.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._kind = str(self._model.config.model_type)
        super().__init__(self._kind, device)
        self._text = prompt_text(self._processor, self._kind, choice.prompt)
        self._has_prompt_in_front = not self._model.config.is_encoder_decoder

    def prepare(self, rgb_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        # How much such a model wants to see depends on the picture: its processor decides.
        return rgb_HWC

    @torch.inference_mode()
    def label(self, batch: Sequence[Prepared]) -> list[Words]:
        # One list an image for those that can take several with one text; Florence-2 takes one.
        flat = self._kind == "florence2"
        inputs = self._processor(
            images=[image.pixels if flat else [image.pixels] for image in batch],
            text=[self._text] * len(batch),
            padding=True,
            return_tensors="pt",
        ).to(self._device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        lengths = {"max_new_tokens": self._choice.max_length or MAX_NEW_TOKENS}
        ids_BS = self._model.generate(
            **inputs,
            pad_token_id=self._processor.tokenizer.pad_token_id,
            **generation(self._choice, [image.key for image in batch], lengths),
        )
        num_prompt = inputs["input_ids"].shape[1] if self._has_prompt_in_front else 0
        said = self._processor.tokenizer.batch_decode(
            ids_BS[:, num_prompt:], skip_special_tokens=True
        )
        return [(one_line(text),) for text in said]


def load_processor(folder: Path) -> Any:
    """Load what turns pictures and text into a model's input.

    A processor that takes videos too is put together without that part where torchvision is
    absent: transformers can load it with torchvision only, and no video ever comes here.

    Raises: DataError.
    """
    kind = PROCESSOR_MAPPING.get(type(load_pretrained(AutoConfig, folder)), None)
    takes_videos = kind is not None and "video_processor" in kind.get_attributes()
    if not takes_videos or find_spec("torchvision") is not None:
        return load_pretrained(AutoProcessor, folder, backend="pil")
    images = load_pretrained(AutoImageProcessor, folder, backend="pil")
    tokenizer = load_pretrained(AutoTokenizer, folder)
    template = _chat_template(folder) or tokenizer.chat_template

    class WithoutVideos(kind):  # type: ignore[misc, valid-type]
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            if name == "video_processor":
                return type(None)
            return super().check_argument_for_proper_class(name, argument)

    return WithoutVideos(images, tokenizer, None, chat_template=template)


def _chat_template(folder: Path) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    if (folder / "chat_template.json").is_file():
        template: str = json.loads(read_text(folder / "chat_template.json"))["chat_template"]
        return template
    return None


def prompt_text(processor: Any, kind: str, prompt: str | None) -> str:
    """Return the text that goes in with the picture."""
    if kind == "florence2":
        return prompt or FLORENCE_PROMPT
    if getattr(processor, "chat_template", None):
        question = [{"type": "image"}, {"type": "text", "text": prompt or PROMPT}]
        text: str = processor.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        return text
    # Without a template the prompt is taken as written; one picture has to stand in it.
    image_token = getattr(processor, "image_token", None)
    text = prompt or ""
    if isinstance(image_token, str) and image_token not in text and kind.startswith("llava"):
        text = f"{image_token}\n{text or PROMPT}"
    return text


def open_vision_language(
    folder: Path, choice: CaptionChoice, device: str
) -> tuple[VisionLanguageCaptioner, str]:
    """Return the captioner and a note where it runs elsewhere than asked. Raises: DataError."""
    device, note = torch_device(device)
    return VisionLanguageCaptioner(folder, choice, device), note
