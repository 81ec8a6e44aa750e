"""Prints how fast cached latents are read in random order, beside np.load of one .npz an image.

Both sides hold the same values, in a warm page cache; one thread each. The second figure is one
worker's batches of 32, as the loader wants them.

python tests/bench/bench_cache_reads.py [number of images]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter

SHAPE = (4, 64, 64)
BATCH_SIZE = 32
ROUNDS = 3


def main(num_images: int) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = TensorStore(Path(folder) / "cache")
        files = [Path(folder) / f"{number}.npz" for number in range(num_images)]
        keys = [f"{number:032x}" for number in range(num_images)]
        with StoreWriter(store) as writer:
            for key, path in zip(keys, files, strict=True):
                latents = rng.standard_normal(SHAPE).astype(np.float16)
                writer.add(key, latents, "fp16")
                np.savez(path, latents=latents)
        order = rng.permutation(num_images)
        batches = [[keys[n] for n in order[at : at + BATCH_SIZE]] for at in _starts(num_images)]

        def from_npz() -> None:
            for number in order:
                with np.load(files[number]) as archive:
                    assert archive["latents"].shape == SHAPE

        def one_by_one() -> None:
            for number in order:
                assert store.read(keys[number]).shape == SHAPE

        def in_batches() -> None:
            for batch in batches:
                assert store.read_batch(batch).shape[1:] == SHAPE

        one_by_one()
        npz, single, batched = (
            num_images / _best_s(do) for do in (from_npz, one_by_one, in_batches)
        )
        for name, speed in (
            ("np.load, one .npz an image", npz),
            ("store, one by one", single),
            (f"store, batches of {BATCH_SIZE}", batched),
        ):
            print(f"{name:28} {speed:10.0f} items/s   x {speed / npz:.1f}")
        copy_s = _best_s(lambda: _plain_copies(num_images))
        print(f"{'the same bytes only copied':28} {num_images / copy_s:10.0f} items/s")
        print(f"batches of {BATCH_SIZE} a second, one worker: {batched / BATCH_SIZE:.0f}")


def _starts(num_images: int) -> range:
    return range(0, num_images - BATCH_SIZE + 1, BATCH_SIZE)


def _best_s(do: Callable[[], None]) -> float:
    best_s = float("inf")
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        do()
        best_s = min(best_s, time.perf_counter() - start_s)
    return best_s


def _plain_copies(num_images: int) -> None:
    source = np.zeros((BATCH_SIZE, *SHAPE), dtype=np.float16)
    for _ in range(num_images // BATCH_SIZE):
        source.copy()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
