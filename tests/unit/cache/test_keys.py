"""A key changes with everything that decides the bits, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sdft.cache.keys import LatentRecipe, TextRecipe

RECIPE = LatentRecipe(vae_digest="aa", vae_dtype="fp32", kind="moments", dtype="fp16")
PICTURE: dict[str, Any] = {
    "image_digest": "bb",
    "resized": (640, 512),
    "crop": (64, 0, 576, 512),
    "flip": False,
    "interpolation": None,
}
TEXT = TextRecipe(
    encoder_digest="cc",
    encoder_dtype="fp32",
    clip_skip=None,
    max_token_length=75,
    weighted=False,
    padding="eos",
    dtype="fp16",
)


def test_the_same_picture_has_the_same_key_in_every_run_and_version() -> None:
    # A change here makes every cache of every user stale: only with PREPROCESSING_VERSION.
    assert RECIPE.key(**PICTURE) == RECIPE.key(**PICTURE)
    assert len(RECIPE.key(**PICTURE)) == 32


@pytest.mark.parametrize(
    "change",
    [
        {"image_digest": "b"},
        {"resized": (641, 512)},
        {"crop": (63, 0, 575, 512)},
        {"flip": True},
        {"interpolation": "lanczos"},
        {"interpolation": "None"},
    ],
)
def test_each_part_of_the_geometry_counts(change: dict[str, Any]) -> None:
    assert RECIPE.key(**{**PICTURE, **change}) != RECIPE.key(**PICTURE)


@pytest.mark.parametrize(
    "change", [{"vae_digest": "a"}, {"vae_dtype": "fp16"}, {"kind": "mean"}, {"dtype": "fp32"}]
)
def test_each_part_of_the_latents_recipe_counts(change: dict[str, Any]) -> None:
    assert replace(RECIPE, **change).key(**PICTURE) != RECIPE.key(**PICTURE)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_digest": "c"},
        {"encoder_dtype": "bf16"},
        {"clip_skip": 1},
        {"max_token_length": 150},
        {"weighted": True},
        {"padding": "zero"},
        {"dtype": "bf16"},
    ],
)
def test_each_part_of_the_text_recipe_counts(change: dict[str, Any]) -> None:
    assert replace(TEXT, **change).key("a cat") != TEXT.key("a cat")
    assert TEXT.key("a cat ") != TEXT.key("a cat")


def test_any_text_has_a_key() -> None:
    texts = ["", "\x00", "\ud800", "\u732b", "a\nb", '"quoted"']
    assert len({TEXT.key(text) for text in texts}) == len(texts)
