"""Makes the package's tiny model of what train_tiny.py left, and measures it.

    python tests/recipes/finish_tiny.py TRAINED_FOLDER [--into FOLDER] [--captions 200]

In: the three networks. Out: FOLDER/tiny.safetensors (one file, fp16, original layout) and
FOLDER/CARD.md with the figures, which it also prints as JSON. The captions are such as no training
picture had; pictures are drawn as `sdft sample` draws them and looked at by the checker.

It ends with 1 where a figure is below its goal; the files are there all the same.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from safetensors.torch import load_file

from sdft.export.single_file import save_single_file
from sdft.jobs.concept import DRAWN_TOGETHER, GUIDANCE, STEPS
from sdft.jobs.training.drawing import Drawer
from sdft.models.bundle import ModelBundle, load_bundle
from sdft.models.family import SD1
from sdft.models.text import state_for, text_state_dict
from sdft.models.tiny.checker import look_at
from sdft.models.tiny.drawing import draw
from sdft.models.tiny.networks import new_networks
from sdft.models.tiny.scenes import SIDE_PX, Scene, caption_of, draw_scene
from sdft.train.preview import SampleRequest

GOALS = {"right_colour": 0.90, "right_shape": 0.75, "psnr_db": 24.0}
MAX_BYTES = 12_000_000
HELD_OUT_SEED = 1_000_003
"""Far from the seeds that anybody trains with."""

CARD = """\
# A tiny Stable Diffusion of coloured shapes

One file in the layout of Stable Diffusion 1.x, fp16, {megabytes:.1f} MB: a VAE with four latent
channels at an eighth of the size, a U-Net of four levels with cross-attention at three, a CLIP text
encoder with CLIP's whole vocabulary. It draws one to three shapes on a grey, white or black ground,
best at {side} x {side} px. It is there for trying things out, and knows nothing else of the world:
a word that its captions did not have may give any of the shapes.

- **Data.** Pictures and captions made by `scenes.py` and `drawing.py` beside this file, from a
  seed; nothing from elsewhere.
- **Recipe.** `tests/recipes/train_tiny.py`, then `tests/recipes/finish_tiny.py`; random weights
  before that.
- **Licence.** Apache-2.0, as the package.

| figure | value | goal |
| --- | --- | --- |
| right colour | {right_colour:.1%} | 90 % |
| right shape | {right_shape:.1%} | 75 % |
| the VAE's reconstruction of held-out pictures, PSNR | {psnr_db:.1f} dB | 24 dB |

Colour and shape: of {captions} pictures for captions that no training picture had, drawn in {steps}
steps with guidance {guidance:g}, as `checker.py` sees them.
"""


def trained_captions(folder: Path) -> set[str]:
    """Return the captions that the model was trained with."""
    first = json.loads((folder / "log.jsonl").read_text("ascii").splitlines()[0])
    seed, number = first["seed"], first["pictures"]
    return {caption_of(draw_scene(seed, index), seed, index) for index in range(number)}


def held_out(known: set[str]) -> Iterator[tuple[Scene, str]]:
    """Give scenes of one shape with captions that are not known, each caption once."""
    given = set(known)
    number = 0
    while True:
        scene = draw_scene(HELD_OUT_SEED, number)
        caption = caption_of(scene, HELD_OUT_SEED, number)
        number += 1
        if scene.count == 1 and caption not in given:
            given.add(caption)
            yield scene, caption


def pack(folder: Path, path: Path) -> int:
    """Write the one file; return its size in bytes."""
    networks = new_networks()
    for name, network in networks.items():
        weights = load_file(folder / f"{name}.safetensors")
        network.load_state_dict(
            state_for(network, weights) if name == "text_encoder" else weights, strict=True
        )
    return save_single_file(
        path,
        unet=networks["unet"].state_dict(),
        text_encoder=text_state_dict(networks["text_encoder"]),
        vae=networks["vae"].state_dict(),
        family=SD1,
        save_precision="fp16",
        form="safetensors",
        metadata={"format": "pt", "modelspec.title": "tiny", "modelspec.license": "Apache-2.0"},
        extras={},
    )


@torch.no_grad()
def reconstruction_psnr_db(bundle: ModelBundle, number: int) -> float:
    scenes = [draw_scene(HELD_OUT_SEED, "vae", index) for index in range(number)]
    rgb_N3HW = draw(scenes, width=SIDE_PX, height=SIDE_PX, device=torch.device("cpu"))
    found = []
    for rgb_3HW in rgb_N3HW:
        pixels_13HW = rgb_3HW[None].float() / 127.5 - 1
        means_1CHW = bundle.vae.encode(pixels_13HW).latent_dist.mode()
        drawn_13HW = bundle.vae.decode(means_1CHW).sample.clamp(-1, 1)
        found.append(10 * math.log10(4 / float(((drawn_13HW - pixels_13HW) ** 2).mean())))
    return sum(found) / len(found)


def drawn_right(bundle: ModelBundle, wanted: list[tuple[Scene, str]]) -> dict[str, float]:
    """Draw a picture for each caption; return the shares of right colours and shapes."""
    drawer = Drawer.of_bundle(
        bundle, clip_skip=None, max_token_length=75, device=torch.device("cpu")
    )
    requests = [
        SampleRequest(
            prompt=caption, width=SIDE_PX, height=SIDE_PX, seed=number, steps=STEPS, scale=GUIDANCE
        )
        for number, (_, caption) in enumerate(wanted)
    ]
    right = np.zeros(2)
    for first in range(0, len(wanted), DRAWN_TOGETHER):
        several = slice(first, first + DRAWN_TOGETHER)
        drawn = drawer.draw_together(requests[several])
        for (scene, _), rgb_HW3 in zip(wanted[several], drawn, strict=True):
            seen = look_at(rgb_HW3)
            right += (seen.colour == scene.colour, seen.shape == scene.shape)
    colour, shape = (right / len(wanted)).tolist()
    return {"right_colour": colour, "right_shape": shape}


def main(arguments: argparse.Namespace) -> int:
    arguments.into.mkdir(parents=True, exist_ok=True)
    path = arguments.into / "tiny.safetensors"
    known = trained_captions(arguments.folder)
    num_bytes = pack(arguments.folder, path)
    bundle = load_bundle(path)
    captions = held_out(known)
    wanted = [next(captions) for _ in range(arguments.captions)]
    figures = {
        "psnr_db": reconstruction_psnr_db(bundle, min(200, arguments.captions)),
        **drawn_right(bundle, wanted),
    }
    card = CARD.format(
        megabytes=num_bytes / 1e6,
        side=SIDE_PX,
        captions=len(wanted),
        steps=STEPS,
        guidance=GUIDANCE,
        **figures,
    )
    (arguments.into / "CARD.md").write_text(card, "utf-8")
    print(json.dumps({"bytes": num_bytes, **figures}))
    good = all(figures[name] >= goal for name, goal in GOALS.items())
    return 0 if good and num_bytes <= MAX_BYTES else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, default=Path("sdft/models/tiny"))
    parser.add_argument("--captions", type=int, default=200)
    sys.exit(main(parser.parse_args()))
