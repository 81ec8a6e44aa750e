"""Prints what the second start on a full cache costs: time to the first batch, and memory.

The cache is synthetic: keys and digests are true, the latents are zeros of 4 x 64 x 64 in fp16.
Beside it: opening one .npz an image, which is how sd-scripts looks at its cache at every start,
measured on a part of the files.

python tests/bench/bench_cache_start.py [number of images] [latent side in cells]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import psutil

from sdft.cache.digests import FileDigests, FileVersion, KnownFile
from sdft.cache.keys import LatentRecipe, digest_of
from sdft.cache.latents import cache_latents
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.dataset.records import BucketPlan, Item, Placement

RECIPE = LatentRecipe(vae_digest="vae", vae_dtype="fp32", kind="sample", dtype="fp16")
BATCH_SIZE = 32
NUM_NPZ = 2000


def plan_of(num_images: int, side_px: int) -> BucketPlan:
    return BucketPlan(
        placements=tuple(
            Placement(
                item=Item(
                    key=f"{number:07d}.jpg",
                    path=Path(f"/data/images/{number:07d}.jpg"),
                    size=(side_px, side_px),
                    caption="",
                    dataset=0,
                    subset=0,
                    num_repeats=1,
                    file_bytes=100_000,
                    mtime_ns=10**18,
                ),
                bucket=(side_px, side_px),
                resized=(side_px, side_px),
                crop=(0, 0, side_px, side_px),
            )
            for number in range(num_images)
        )
    )


def fill(folder: Path, num_images: int, side_cells: int) -> None:
    plan = plan_of(num_images, 8 * side_cells)
    zeros = np.zeros((4, side_cells, side_cells), dtype=np.float16)
    with (
        FileDigests(folder / "digests.sqlite") as digests,
        StoreWriter(TensorStore(folder)) as writer,
    ):
        for one in plan.placements:
            digest = digest_of(one.item.key)
            version = FileVersion(
                path=one.item.path, size_bytes=one.item.file_bytes, mtime_ns=one.item.mtime_ns
            )
            digests.remember(KnownFile(version=version, digest=digest))
            key = RECIPE.key(
                image_digest=digest,
                resized=one.resized,
                crop=one.crop,
                flip=False,
                interpolation=None,
            )
            writer.add(key, zeros, "fp16")


def start_again(folder: Path, num_images: int, side_cells: int) -> None:
    """Run in a process of its own, so that its memory is its own."""
    plan = plan_of(num_images, 8 * side_cells)
    before_bytes = _peak_bytes()
    start_s = time.perf_counter()
    store = TensorStore(folder)
    with FileDigests(folder / "digests.sqlite") as digests:
        result = cache_latents(
            plan,
            store=store,
            digests=digests,
            recipe=RECIPE,
            rules={},
            load_encoder=lambda: sys.exit("something is missing"),
        )
    order = np.random.default_rng(0).permutation(num_images)[:BATCH_SIZE]
    batch = store.read_batch([result.keys[number].plain or "" for number in order])
    assert batch.shape[0] == BATCH_SIZE
    assert result.reused == num_images, result
    print(
        f"{num_images} cached items: first batch after {time.perf_counter() - start_s:.2f} s, "
        f"peak {_peak_bytes() / 1e9:.2f} GB ({before_bytes / 1e9:.2f} GB of it imports and plan)"
    )


def open_npz(folder: Path, num_images: int, side_cells: int) -> None:
    zeros = np.zeros((4, side_cells, side_cells), dtype=np.float32)
    paths = [folder / f"{number}.npz" for number in range(NUM_NPZ)]
    for path in paths:
        np.savez(path, latents=zeros, original_size=np.zeros(2), crop_ltrb=np.zeros(4))
    start_s = time.perf_counter()
    for path in paths:
        with np.load(path) as archive:
            assert "latents" in archive
    each_s = (time.perf_counter() - start_s) / NUM_NPZ
    print(
        f"opening {num_images} .npz files at {each_s * 1e6:.0f} us each: "
        f"{each_s * num_images:.1f} s"
    )


def _peak_bytes() -> int:
    """Return the largest memory of this process; getrusage would count its parent's as well."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return int(memory.peak_wset)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main(num_images: int, side_cells: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name), num_images, side_cells)
        command = [sys.executable, __file__, str(num_images), str(side_cells), name]
        subprocess.run(command, check=True)
        open_npz(Path(name), num_images, side_cells)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:3]]
    num_images, side_cells = [*numbers, *(100_000, 64)[len(numbers) :]]
    if len(sys.argv) > 3:
        start_again(Path(sys.argv[3]), num_images, side_cells)
    else:
        main(num_images, side_cells)
