"""The world of the tiny model: what is drawn is what the caption says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdft.models.bundle import build_network
from sdft.models.tiny.drawing import draw
from sdft.models.tiny.networks import SIZES, tiny_configs
from sdft.models.tiny.scenes import (
    BACKGROUNDS,
    COLOURS,
    COUNT_WORDS,
    NEW_SHAPES,
    SHAPES,
    caption_of,
    draw_scene,
)

CPU = torch.device("cpu")
MAX_BYTES = 12_000_000


def drawn(scenes, width=96, height=96):
    return draw(scenes, width=width, height=height, device=CPU).int()


def share_of_colour(picture_3HW, colour):
    near = (picture_3HW - torch.tensor(colour)[:, None, None]).abs().amax(dim=0) < 12
    return float(near.float().mean())


def test_a_scene_and_its_caption_follow_from_their_address_alone():
    assert draw_scene(3, 14) == draw_scene(3, 14)
    assert caption_of(draw_scene(3, 14), 3, 14) == caption_of(draw_scene(3, 14), 3, 14)
    assert len({draw_scene(3, number) for number in range(50)}) == 50


def test_the_base_model_never_sees_the_new_shapes():
    scenes = [draw_scene(0, number) for number in range(3000)]
    assert {scene.shape for scene in scenes} == set(SHAPES)
    assert not any(
        shape in caption_of(scene, 0, number)
        for number, scene in enumerate(scenes)
        for shape in NEW_SHAPES
    )


def test_captions_are_true_and_never_name_another_shape_or_colour():
    for number in range(1000):
        scene = draw_scene(7, number)
        words = caption_of(scene, 7, number).replace(",", "").split()
        assert scene.colour in words
        assert any(word.startswith(scene.shape) for word in words)
        others = {*SHAPES, *COLOURS} - {scene.shape, scene.colour}
        assert not others & set(words)
        if set(COUNT_WORDS[1:]) & set(words):
            assert COUNT_WORDS[scene.count - 1] in words
        named = [name for name in BACKGROUNDS if name in words]
        assert named in ([], [scene.background])


def test_plain_captions_are_in_the_language():
    said = {caption_of(draw_scene(0, number), 0, number) for number in range(20_000)}
    assert said >= {"a red circle", "a blue square", "a green triangle", "a yellow circle"}


@pytest.mark.parametrize("shape", [*SHAPES, *NEW_SHAPES])
def test_a_shape_has_its_colour_its_size_and_its_place(shape):
    base = replace(draw_scene(0, 0, plain=True), shape=shape, colour="blue", background="white")
    left = replace(base, centres=((0.3, 0.5),), radius=0.2, gradient=0.0)
    small, large = drawn([left, replace(left, centres=((0.5, 0.5),), radius=0.4)])
    blue = COLOURS["blue"]
    ratio = share_of_colour(large, blue) / share_of_colour(small, blue)
    assert ratio == pytest.approx(4, rel=0.15)
    half = small.shape[2] // 2
    assert share_of_colour(small[:, :, :half], blue) > 5 * share_of_colour(small[:, :, half:], blue)
    assert share_of_colour(small, BACKGROUNDS["white"]) > 0.5


def test_shapes_are_told_apart_by_how_much_of_their_circle_they_fill():
    base = replace(draw_scene(0, 0, plain=True), colour="red", background="black", gradient=0.0)
    scenes = [
        replace(base, shape=shape, radius=0.4, centres=((0.5, 0.5),))
        for shape in ("circle", "square", "ring", "star")
    ]
    circle, square, ring, star = (
        share_of_colour(picture, COLOURS["red"]) for picture in drawn(scenes, 128, 128)
    )
    area = math.pi * 0.4**2
    assert circle == pytest.approx(area, rel=0.06)
    assert square == pytest.approx((2 * 0.86 * 0.4) ** 2, rel=0.06)
    assert ring == pytest.approx(area * (1 - 0.5**2), rel=0.1)
    assert star < 0.5 * circle


def test_several_are_as_many_as_the_scene_says():
    scene = next(one for one in (draw_scene(5, n) for n in range(200)) if one.count == 3)
    one = replace(scene, centres=scene.centres[:1], texture="plain", gradient=0.0)
    three = replace(one, centres=scene.centres)
    single, several = drawn([one, three])
    colour = COLOURS[scene.colour]
    assert share_of_colour(several, colour) == pytest.approx(
        3 * share_of_colour(single, colour), rel=0.1
    )


def test_pictures_may_have_any_aspect_ratio():
    assert drawn([draw_scene(0, 1)], width=128, height=64).shape == (1, 3, 64, 128)


def test_the_weights_fit_into_the_package():
    weights = sum(
        math.prod(shape) for sizes in SIZES.values() for shape in sizes.tensors().values()
    )
    assert 2 * weights < MAX_BYTES


@pytest.mark.long
def test_the_recipe_runs_and_its_files_are_networks(tmp_path):
    script = Path(__file__).parents[2] / "recipes" / "train_tiny.py"
    words = ["--pictures", "16", "--vae-steps", "1", "--unet-steps", "2"]
    subprocess.run([sys.executable, "-W", "ignore", script, tmp_path, *words], check=True)
    for part, config in tiny_configs().items():
        build_network(part, config, load_file(tmp_path / f"{part}.safetensors"))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("ascii").splitlines()]
    assert log[-1]["done"]
    (scale,) = [one["latent_std"] for one in log if "latent_std" in one]
    assert scale == pytest.approx(1, abs=1e-3)
