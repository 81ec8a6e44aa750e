"""Trains the tiny Stable Diffusion from nothing, on pictures that it draws itself.

    python tests/recipes/train_tiny.py OUT_FOLDER [--seconds 400] [--vae-steps 8000] [--resume]

First the VAE (reconstruction, edges, a little of the Kullback-Leibler term), then the U-Net and the
text encoder on its latents, with captions left out now and then for guidance. On a GPU each step is
one CUDA graph. The pictures follow from the seed; what is computed differs in the last bits from
one device to another. On a GPU it takes minutes. The package's model came from one CPU core in
three runs:

    python tests/recipes/train_tiny.py FIRST --pictures 16000 --vae-steps 3200 --seconds 5150
    python tests/recipes/finish_tiny.py FIRST --into FIRST
    python tests/recipes/train_tiny.py SECOND --pictures 16000 --seconds 3480 \
        --start FIRST/tiny.safetensors
    python tests/recipes/finish_tiny.py SECOND --into SECOND
    python tests/recipes/train_tiny.py THIRD --pictures 16000 --text-steps 2000 --unet-steps 0 \
        --start SECOND/tiny.safetensors
    python tests/recipes/finish_tiny.py THIRD

20 minutes for the VAE, 6 for the latents of each run, an hour for the U-Net and text encoder in
each of the first two, 6 minutes for the text encoder alone in the third. --start takes VAE and
U-Net from a model; the text encoder begins anew, and at first it learns alone what that U-Net
understands. In minutes it finds words that take both of them half an hour from nothing, and it
keeps them further apart.

The text encoder is wholly of the third run. What the package's U-Net has of the first was trained
without nameless things, noise on contexts and the loss on other words; what it has of the second
was trained with embeddings as short as CLIP's, and with other words only held in the middle.

OUT_FOLDER/{vae,unet,text_encoder}.safetensors (float32; the last two are averages over the steps),
log.jsonl and state.pt are renewed every 30 s. With --resume and the same other options training
goes on from state.pt; --seconds counts what went before. While a file named by --hold exists,
training holds still, so that something else can be timed on the same device. finish_tiny.py makes
the package's model of the result.

B batch, C latent channels, H W latent height and width, S tokens.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdft.models.tiny.scenes import SIDE_PX
from sdft.models.vae import LATENT_SCALE
from tests.recipes import tiny_vae
from tests.recipes.nameless import SHARE as NAMELESS
from tests.recipes.tiny_recipe import Pictures, Recipe, pictures_of
from tests.recipes.tiny_unet import Lesson, train_text_alone, train_unet


def latents_of(recipe: Recipe, pictures: Pictures, seed: int) -> Tensor:
    """Return the latents of all pictures; a resumed training finds them on disk."""
    path = recipe.out / "latents.safetensors"
    if recipe.state["step"] and path.exists():
        return load_file(path)["latents"].to(recipe.device)
    vae = recipe.networks["vae"].eval()
    held_out = pictures_of(recipe, min(500, len(pictures)), seed + 1, SIDE_PX)
    recipe.log(held_out_psnr_db=tiny_vae.held_out_psnr(recipe, held_out))
    latents_NCHW = tiny_vae.means_of(vae, pictures.rgb_N3HW) * LATENT_SCALE
    save_file({"latents": latents_NCHW.cpu().contiguous()}, path)
    return latents_NCHW


def main(arguments: argparse.Namespace) -> None:
    recipe = Recipe(arguments)
    first = {"seed": arguments.seed, "pictures": arguments.pictures}
    recipe.log(**first, device=str(recipe.device))
    if recipe.state["stage"] == "vae":
        number = min(tiny_vae.NUM_PICTURES, arguments.pictures)
        tiny_vae.train_vae(
            recipe,
            pictures_of(recipe, number, arguments.seed, 2 * tiny_vae.LAST_PX),
            arguments.vae_steps,
        )
    pictures = pictures_of(
        recipe,
        arguments.pictures,
        arguments.seed,
        SIDE_PX,
        nameless=int(NAMELESS * arguments.pictures),
    )
    latents_NCHW = latents_of(recipe, pictures, arguments.seed)
    pictures.rgb_N3HW = pictures.rgb_N3HW[:, :, :0, :0].clone()
    if recipe.device.type == "cuda":
        torch.cuda.empty_cache()
    lesson = Lesson(recipe, pictures, latents_NCHW)
    if arguments.start is not None and not recipe.state["step"]:
        train_text_alone(recipe, lesson, arguments.text_steps)
    train_unet(recipe, lesson, arguments.unet_steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--vae-steps", type=int, default=8000)
    parser.add_argument("--unet-steps", type=int, default=10**9)
    parser.add_argument("--text-steps", type=int, default=1500)
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hold", type=Path)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--resume", action="store_true")
    main(parser.parse_args())
