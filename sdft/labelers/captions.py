"""What all captioners share: what was asked for, and sampling that depends on no other image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers.utils import logging

from sdft.errors import DataError
from sdft.streams import seed64


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionChoice:
    """What the person asked for, under the reference's names."""

    beam_search: bool = False
    num_beams: int = 1
    top_p: float = 0.9
    max_length: int | None = None
    """Tokens; None for the model's default (BLIP 75, prompt included; GIT 50; others 256 new)."""
    min_length: int = 5
    seed: int = 42
    prompt: str | None = None
    """None for the backend's own."""
    remove_words: bool = False
    """Take out phrases such as `with the words "..."`."""
    dtype: str = "auto"
    """`fp32`, `fp16`, `bf16`; `auto` is fp16 on a GPU and fp32 on a CPU."""


NUCLEUS_PENALTY = 1.1
BEAM_PENALTY = 1.0
"""Repetition penalties. Source: reference, section 1.3."""


def generation(
    choice: CaptionChoice, keys: Sequence[str], lengths: dict[str, int]
) -> dict[str, Any]:
    """Return the arguments for transformers' `generate` that fit a batch of images."""
    if choice.beam_search:
        return {
            "do_sample": False,
            "num_beams": choice.num_beams,
            "repetition_penalty": BEAM_PENALTY,
            **lengths,
        }
    return {
        # Greedy over noisy scores: the noise makes it a draw, and each image has its own.
        "do_sample": False,
        "num_beams": 1,
        "repetition_penalty": NUCLEUS_PENALTY,
        "logits_processor": [PerImageNucleus(keys, choice.seed, choice.top_p)],
        **lengths,
    }


class PerImageNucleus(LogitsProcessor):  # type: ignore[misc]
    """Draws from the nucleus with noise that belongs to the image.

    The largest of (logit + Gumbel noise) is a draw from the softmax, so the greedy choice that
    follows is a sample. transformers' own sampling draws for the batch as a whole.
    Letters: B images, V vocabulary.
    Source: Gumbel-max, e.g. Maddison et al. 2014 (arXiv 1411.0030), section 2.
    """

    def __init__(self, keys: Sequence[str], seed: int, top_p: float) -> None:
        self._top_p = top_p
        self._generators = [
            torch.Generator().manual_seed(seed64(seed, key, "caption")) for key in keys
        ]

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        kept_BV = nucleus(scores_BV.float(), self._top_p)
        uniform_BV = torch.stack(
            [
                torch.rand(kept_BV.shape[1], generator=generator, dtype=torch.float64)
                for generator in self._generators
            ]
        )
        noise_BV = -torch.log(-torch.log(uniform_BV.clamp(1e-300)))
        return kept_BV + noise_BV.to(kept_BV.device, kept_BV.dtype)


def nucleus(scores_BV: Tensor, top_p: float) -> Tensor:
    """Return the scores with all but the nucleus at minus infinity.

    The nucleus is the smallest set of most likely tokens whose probabilities reach `top_p`.
    """
    sorted_BV, order_BV = scores_BV.sort(dim=-1, descending=True, stable=True)
    mass_BV = sorted_BV.softmax(dim=-1).cumsum(dim=-1)
    # A token stays while those before it have not reached top_p; the first always stays.
    beyond_BV = mass_BV - sorted_BV.softmax(dim=-1) >= top_p
    beyond_BV[:, 0] = False
    outside_BV = torch.zeros_like(beyond_BV).scatter_(1, order_BV, beyond_BV)
    return scores_BV.masked_fill(outside_BV, float("-inf"))


class Captioner:
    """What every captioner answers in the same way."""

    first_batches = (4, 16)
    """On a CPU and on a GPU."""

    def __init__(self, name: str, device: str) -> None:
        self._name = name
        self._device = device

    @property
    def title(self) -> str:
        return f"{self._name} on {self._device}"

    @property
    def fixed_batch(self) -> int | None:
        return None

    @property
    def first_batch(self) -> int:
        return self.first_batches[self._device != "cpu"]


def torch_dtype(choice: CaptionChoice, device: str) -> torch.dtype:
    """Return the precision of the weights."""
    if choice.dtype == "auto":
        return torch.float32 if device == "cpu" else torch.float16
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[choice.dtype]


def load_pretrained(loader: Any, folder: Path, **options: Any) -> Any:
    """Call a class' `from_pretrained` on a folder, with no network.

    Raises: DataError where the folder does not hold what the class needs.
    """
    # Its bars would be drawn over ours, for a folder that loads in a moment.
    logging.disable_progress_bar()
    try:
        return loader.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise DataError(
            what=f"{loader.__name__} cannot load this folder:"
            f" {lines[0] if lines else type(error).__name__}",
            where=str(folder),
            fix="a transformers folder has config.json, weights, preprocessor_config.json and the"
            " tokenizer's files; download it again",
        ) from error


def load_model(loader: Any, folder: Path, *, device: str, dtype: torch.dtype) -> Any:
    """Load a model whole: a weight that is absent is an error, not a random number.

    Raises: DataError.
    """
    loaded = load_pretrained(loader, folder, dtype=dtype, output_loading_info=True)
    model, facts = loaded
    missing = sorted(facts["missing_keys"])
    if missing:
        raise DataError(
            what=f"{len(missing)} weights are missing, such as {missing[0]}",
            where=str(folder),
            fix="these are not this model's weights, or not all of them; download it again",
        )
    return model.to(device).eval()


def one_line(text: str) -> str:
    """Return a caption without line ends and doubled spaces."""
    return " ".join(text.split())
