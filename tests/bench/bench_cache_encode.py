"""Prints how fast pictures get to the VAE, beside one thread's decoding and resizing x cores.

The VAE returns at once, so what is left is reading, digests, decoding, resizing, cropping and
writing. Large JPEGs with the fine detail of a photograph; best of several rounds.

python tests/bench/bench_cache_encode.py [number of images] [width] [height]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from PIL import Image

from sdft.cache.digests import FileDigests
from sdft.cache.keys import LatentRecipe
from sdft.cache.latents import cache_latents
from sdft.cache.pipeline import num_cores
from sdft.cache.store import TensorStore
from sdft.dataset.pixels import decode_rgb, fit
from sdft.dataset.records import BucketPlan, Item, Placement

RECIPE = LatentRecipe(vae_digest="none", vae_dtype="fp32", kind="sample", dtype="fp16")
ROUNDS = 6
BUCKET = (640, 384)


class NoVae:
    """Returns at once."""

    def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
        num, height, width, _ = rgb_BHWC.shape
        return lambda: np.zeros((num, 8, height // 8, width // 8), dtype=np.float32)

    def explain_not_finite(self) -> tuple[str, str]:
        raise AssertionError("zeros are finite")


def save_photo(path: Path, width: int, height: int, seed: int) -> None:
    """Write a smooth picture with noise: about as many bytes a pixel as a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 64, width // 64, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(path, quality=92)


def placement(path: Path, width: int, height: int) -> Placement:
    scale = max(BUCKET[0] / width, BUCKET[1] / height)
    resized = (int(width * scale + 0.5), int(height * scale + 0.5))
    left, top = (resized[0] - BUCKET[0]) // 2, (resized[1] - BUCKET[1]) // 2
    status = path.stat()
    return Placement(
        item=Item(
            key=path.name,
            path=path,
            size=(width, height),
            caption="",
            dataset=0,
            subset=0,
            num_repeats=1,
            file_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
        ),
        bucket=BUCKET,
        resized=resized,
        crop=(left, top, left + BUCKET[0], top + BUCKET[1]),
    )


def main(num_images: int, width: int, height: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(num_images):
            save_photo(folder / f"{number}.jpg", width, height, seed=number)
        placements = tuple(
            placement(folder / f"{number}.jpg", width, height) for number in range(num_images)
        )

        def one_thread() -> None:
            for one in placements:
                decode_and_fit(one)

        def pipeline(round_number: int) -> None:
            cache = folder / f"cache{round_number}"
            with FileDigests(cache / "digests.sqlite") as digests:
                result = cache_latents(
                    BucketPlan(placements=placements),
                    store=TensorStore(cache),
                    digests=digests,
                    recipe=RECIPE,
                    rules={},
                    load_encoder=NoVae,
                )
            assert result.encoded == num_images

        cores = num_cores()
        alone_s = ours_s = processes_s = float("inf")
        with get_context("spawn").Pool(cores) as pool:

            def one_process_a_core() -> None:
                pool.map(decode_and_fit, placements, chunksize=1)

            one_process_a_core()
            for round_number in range(ROUNDS):
                alone_s = min(alone_s, _seconds(one_thread))
                ours_s = min(ours_s, _seconds(lambda number=round_number: pipeline(number)))
                processes_s = min(processes_s, _seconds(one_process_a_core))
        alone, ours, processes = (num_images / s for s in (alone_s, ours_s, processes_s))
        print(f"{num_images} JPEGs of {width} x {height} px to {BUCKET[0]} x {BUCKET[1]} px")
        print(f"one thread's decode and fit {alone:7.1f} images/s, x {cores} = {alone * cores:.1f}")
        print(f"one process a core          {processes:7.1f} images/s: what the machine has free")
        print(
            f"the whole pass without VAE  {ours:7.1f} images/s, "
            f"ratio {ours / alone / cores:.2f} and {ours / processes:.2f}"
        )


def decode_and_fit(one: Placement) -> None:
    fit(decode_rgb(one.item.path), one.resized, one.crop, None)


def _seconds(do: Callable[[], None]) -> float:
    start_s = time.perf_counter()
    do()
    return time.perf_counter() - start_s


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(*[*numbers, *(48, 3000, 2000)[len(numbers) :]])
