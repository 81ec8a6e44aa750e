"""The checker that looks at pictures of coloured shapes, and what the tiny model is made of."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from sdft.formats.clip_tokens import ClipTokenizer
from sdft.models.tiny.checker import Seen, look_at
from sdft.models.tiny.drawing import draw
from sdft.models.tiny.scenes import COLOURS, NEW_SHAPES, SHAPES, Scene, draw_scene

ALL_SHAPES = (*SHAPES, *NEW_SHAPES)


def pictures_of(scenes, width=128, height=128):
    drawn = draw(scenes, width=width, height=height, device=torch.device("cpu"))
    return list(drawn.permute(0, 2, 3, 1).numpy())


def test_the_checker_names_every_shape_in_every_colour():
    pairs = list(product(ALL_SHAPES, COLOURS))
    scenes = [Scene(shape=shape, colour=colour) for shape, colour in pairs]
    seen = [look_at(picture) for picture in pictures_of(scenes)]
    assert seen == [Seen(shape, colour) for shape, colour in pairs]


def test_the_checker_is_right_about_true_pictures_of_every_kind():
    scenes = [draw_scene(77, number, shapes=ALL_SHAPES) for number in range(150)]
    assert {scene.texture for scene in scenes} == {"plain", "striped", "dotted"}
    assert {scene.count for scene in scenes} == {1, 2, 3}
    seen = [look_at(picture) for picture in pictures_of(scenes)]
    right = sum(
        one == Seen(scene.shape, scene.colour) for one, scene in zip(seen, scenes, strict=True)
    )
    assert right >= 0.99 * len(scenes)


def test_the_checker_is_right_about_true_pictures_with_noise():
    scenes = [draw_scene(78, number, shapes=ALL_SHAPES, plain=True) for number in range(60)]
    draws = np.random.default_rng(1)
    noisy = [
        np.clip(one + draws.normal(0, 6, one.shape), 0, 255).astype(np.uint8)
        for one in pictures_of(scenes)
    ]
    seen = [look_at(picture) for picture in noisy]
    right = sum(
        one == Seen(scene.shape, scene.colour) for one, scene in zip(seen, scenes, strict=True)
    )
    assert right >= 0.95 * len(scenes)


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_the_checker_is_right_in_wide_and_high_pictures(shape):
    scene = Scene(shape=shape, colour="blue", background="black")
    for width, height in ((192, 128), (96, 160)):
        assert look_at(pictures_of([scene], width, height)[0]) == Seen(shape, "blue")


def test_the_checker_sees_nothing_where_nothing_is():
    grey = np.full((64, 64, 3), 128, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert look_at(grey) == Seen(None, None)
    assert look_at(noise) == Seen(None, None)


def test_the_new_word_is_one_token():
    """One embedding learns it, as a person's own word should."""
    for shape in NEW_SHAPES:
        begin, word, end = ClipTokenizer("eos").chunks(shape, 75)[0][:3]
        assert len({begin, word, end}) == 3
        assert end == ClipTokenizer("eos").chunks("", 75)[0][1]
