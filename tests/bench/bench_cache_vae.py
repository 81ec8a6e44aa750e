"""Prints what encoding a folder takes with a full-size VAE, beside the VAE on the same pixels.

On a GPU where there is one (fp16), else on the CPU (float32, small pictures: minutes). The VAE has
the published size and random weights.

python tests/bench/bench_cache_vae.py [number of images] [bucket side in px] [VAE batch size]
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdft.cache.digests import FileDigests
from sdft.cache.encoders import VaeEncoder
from sdft.cache.latents import cache_latents
from sdft.cache.pipeline import Picture, encode_pictures
from sdft.cache.store import TensorStore
from sdft.dataset.pixels import decode_rgb, fit
from sdft.dataset.records import BucketPlan, Placement
from sdft.models.configs import vae_config
from tests.bench.bench_cache_encode import RECIPE, placement, save_photo

PHOTO = (3000, 2000)
ROUNDS = 2


def in_square(one: Placement, side_px: int) -> Placement:
    scale = side_px / min(PHOTO)
    resized = (int(PHOTO[0] * scale + 0.5), int(PHOTO[1] * scale + 0.5))
    left = (resized[0] - side_px) // 2
    crop = (left, 0, left + side_px, side_px)
    return replace(one, bucket=(side_px, side_px), resized=resized, crop=crop)


def main(num_images: int, side_px: int, batch_size: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = vae_config(widths=(128, 256, 512, 512), layers_per_block=2, latent_channels=4)
    vae = AutoencoderKL.from_config(config)
    encoder = VaeEncoder(vae.to(device, torch.float16 if device.type == "cuda" else torch.float32))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(num_images):
            save_photo(folder / f"{number}.jpg", *PHOTO, seed=number)
        placements = tuple(
            in_square(placement(folder / f"{number}.jpg", *PHOTO), side_px)
            for number in range(num_images)
        )
        pictures = [
            Picture(
                number=number,
                key="",
                path=one.item.path,
                rgb_HWC=fit(decode_rgb(one.item.path), one.resized, one.crop, None),
            )
            for number, one in enumerate(placements)
        ]
        for _ in encode_pictures(pictures[:batch_size], encoder.submit, batch_size=batch_size):
            pass
        alone_s = whole_s = float("inf")
        for round_number in range(ROUNDS):
            start_s = time.perf_counter()
            for _ in encode_pictures(pictures, encoder.submit, batch_size=batch_size):
                pass
            alone_s = min(alone_s, time.perf_counter() - start_s)
            start_s = time.perf_counter()
            with FileDigests(folder / f"{round_number}.sqlite") as digests:
                cache_latents(
                    BucketPlan(placements=placements),
                    store=TensorStore(folder / f"cache{round_number}"),
                    digests=digests,
                    recipe=RECIPE,
                    rules={},
                    load_encoder=lambda: encoder,
                    vae_batch_size=batch_size,
                )
            whole_s = min(whole_s, time.perf_counter() - start_s)
    print(f"{num_images} JPEGs of {PHOTO[0]} x {PHOTO[1]} px to {side_px} px, {device.type}")
    print(f"the VAE alone   {num_images / alone_s:8.2f} images/s")
    print(
        f"the whole pass  {num_images / whole_s:8.2f} images/s, {whole_s / alone_s:.3f} of the time"
    )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    defaults = (512, 512, 8) if torch.cuda.is_available() else (6, 256, 1)
    main(*[*numbers, *defaults[len(numbers) :]])
