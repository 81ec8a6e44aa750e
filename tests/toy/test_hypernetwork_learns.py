"""A word that is learnt through a hypernetwork alone: the tiny model stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from sdft.cli.app import run
from sdft.events import ignore
from sdft.files import write_text
from sdft.jobs.demo import prepare_demo
from sdft.jobs.hypernetworks import use_hypernetworks
from sdft.jobs.training.drawing import Drawer
from sdft.models.bundle import load_bundle
from sdft.models.tiny.checker import look_at
from sdft.models.tiny.drawing import draw
from sdft.models.tiny.scenes import SHAPES, SIDE_PX, draw_scene
from sdft.train.preview import SampleRequest

CPU = torch.device("cpu")
SUNSET = ("orange", "circle")
KNOWN = [("red", "circle"), ("blue", "square"), ("green", "ring"), ("purple", "cross")]


def write_sunsets(folder: Path) -> None:
    """Put pictures of one kind and colour, under a word that says neither, for the demo's own."""
    for path in folder.iterdir():
        path.unlink()
    scenes = [
        replace(draw_scene("sunset", number, plain=True, shapes=[SUNSET[1]]), colour=SUNSET[0])
        for number in range(20)
    ]
    rgb_N3HW = draw(scenes, width=SIDE_PX, height=SIDE_PX, device=CPU)
    for number, (scene, rgb_3HW) in enumerate(zip(scenes, rgb_N3HW, strict=True)):
        Image.fromarray(rgb_3HW.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
        size = "" if scene.size == "medium" else f"{scene.size} "
        write_text(folder / f"{number}.txt", f"a {size}sunset")


def shares(model: Path, network: Path, strength: float) -> tuple[float, float]:
    """Return how many sunsets, and how many known things, are drawn as they are to be."""
    bundle = load_bundle(model)
    use_hypernetworks(bundle, [(network, strength)], emit=ignore)
    drawer = Drawer.of_bundle(bundle, clip_skip=None, max_token_length=75, device=CPU)
    wanted = [("a sunset", SUNSET)] * 16
    wanted += [(f"a {colour} {shape}", (colour, shape)) for colour, shape in KNOWN * 4]
    requests = [
        SampleRequest(prompt=text, width=SIDE_PX, height=SIDE_PX, seed=number, steps=20, scale=4.0)
        for number, (text, _) in enumerate(wanted)
    ]
    seen = map(look_at, drawer.draw_together(requests))
    right = [(one.colour, one.shape) == what for one, (_, what) in zip(seen, wanted, strict=True)]
    return float(np.mean(right[:16])), float(np.mean(right[16:]))


def test_a_word_is_learnt_through_a_hypernetwork(tmp_path):
    assert SUNSET[1] in SHAPES
    folder = tmp_path / "demo"
    prepare_demo(folder, emit=ignore)
    write_sunsets(folder / "images")
    config = folder / "config.toml"
    lines = config.read_text("utf-8").splitlines()
    of_the_model = ("sample_", "valid", "learning_rate_te", "train_text_encoder")
    config.write_text("\n".join(line for line in lines if not line.startswith(of_the_model)))
    AcceleratorState._reset_state(reset_partial_state=True)
    line = ["train", str(config), "--device", "cpu", "--quiet", "--hypernetwork"]
    assert run([*line, "--learning_rate", "5e-3", "--max_train_epochs", "20"]) == 0
    network = folder / "output" / "demo.pt"
    without, known_before = shares(folder / "model.safetensors", network, 0.0)
    learnt, known_after = shares(folder / "model.safetensors", network, 1.0)
    print(f"sunsets {without:.2f} -> {learnt:.2f}, known {known_before:.2f} -> {known_after:.2f}")
    assert without <= 0.25
    assert learnt >= 0.7
    assert known_after >= known_before - 0.1
