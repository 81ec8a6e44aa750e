"""What words, guidance and sizes do to pictures: on the tiny model, which can draw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sdft.jobs.training.drawing import Drawer
from sdft.models.bundle import load_bundle
from sdft.models.tiny.checker import Seen, look_at
from sdft.models.tiny.scenes import COLOURS, SHAPES, SIDE_PX, indefinite
from sdft.models.tiny.shipped import TINY_MODEL
from sdft.train.preview import SampleRequest

PAIRS = [
    (list(COLOURS)[(2 * turn + number) % len(COLOURS)], shape)
    for turn in range(4)
    for number, shape in enumerate(SHAPES)
]
"""Each shape in four colours."""


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    bundle = load_bundle(TINY_MODEL)
    return Drawer.of_bundle(bundle, clip_skip=None, max_token_length=75, device=torch.device("cpu"))


def seen_for(drawer: Drawer, prompts: list[str], **settings: object) -> Iterator[Seen]:
    """Give what is seen in the picture of each prompt."""
    common = {"width": SIDE_PX, "height": SIDE_PX, "steps": 20, "scale": 4.0} | settings
    requests = [
        SampleRequest(prompt=prompt, seed=number, **common) for number, prompt in enumerate(prompts)
    ]
    return map(look_at, drawer.draw_together(requests))


def shares(drawer: Drawer, **settings: object) -> tuple[float, float]:
    """Return the shares of right colours and of right shapes."""
    prompts = [f"{indefinite(colour)} {colour} {shape}" for colour, shape in PAIRS]
    seen = list(seen_for(drawer, prompts, **settings))
    colours = [one.colour == colour for one, (colour, _) in zip(seen, PAIRS, strict=True)]
    shapes = [one.shape == shape for one, (_, shape) in zip(seen, PAIRS, strict=True)]
    return float(np.mean(colours)), float(np.mean(shapes))


def test_what_the_prompt_says_is_drawn(drawer):
    colours, shapes = shares(drawer)
    assert colours >= 0.9
    assert shapes >= 0.75


def test_guidance_brings_out_what_the_prompt_says(drawer):
    _, guided = shares(drawer)
    _, unguided = shares(drawer, scale=1.0)
    assert unguided < guided - 0.1


def test_what_the_negative_prompt_says_is_hardly_drawn_where_there_is_guidance(drawer):
    def seen(**settings: object) -> list[Seen]:
        return list(seen_for(drawer, [""] * 24, **settings))

    anything, not_that = seen(), seen(negative_prompt="a blue square")
    num_blue = [sum(one.colour == "blue" for one in some) for some in (anything, not_that)]
    assert num_blue[0] >= 6
    assert num_blue[1] <= num_blue[0] / 2
    assert not any(one.shape == "square" for one in not_that)
    assert seen(negative_prompt="a blue square", scale=1.0) == seen(scale=1.0)


def test_a_picture_that_is_wider_or_higher_shows_what_was_asked_for(drawer):
    for width, height in ((96, 64), (64, 96)):
        colours, _ = shares(drawer, width=width, height=height)
        assert colours >= 0.75, (width, height)
