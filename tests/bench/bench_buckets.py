"""Prints how long a million images take to plan, beside the textbook loop.

The best of three runs of each, in seconds of processor time, one thread.

python tests/bench/bench_buckets.py [number of images]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from sdft.dataset.buckets import bucket_list, choose
from sdft.dataset.records import BucketSettings
from tests.unit.dataset.textbook import choose_one


def main(num_images: int) -> None:
    sizes_N2 = np.random.default_rng(0).integers(64, 6000, size=(num_images, 2))
    sizes = [(width, height) for width, height in sizes_N2.tolist()]
    for no_upscale in (False, True):
        settings = BucketSettings(resolution=(512, 512), bucket_no_upscale=no_upscale)
        buckets = list(bucket_list(settings))
        vectorised_s = loop_s = float("inf")
        for _ in range(3):
            start = time.process_time()
            chosen = choose(sizes_N2, settings)
            vectorised_s = min(vectorised_s, time.process_time() - start)
            start = time.process_time()
            expected = [choose_one(size, settings, buckets) for size in sizes]
            loop_s = min(loop_s, time.process_time() - start)
        same = [tuple(bucket) for bucket in chosen.buckets_N2.tolist()] == [b for b, _ in expected]
        print(
            f"{num_images} images, bucket_no_upscale={no_upscale}: {vectorised_s:.3f} s, "
            f"textbook loop {loop_s:.3f} s, ratio {loop_s / vectorised_s:.1f}, same: {same}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
