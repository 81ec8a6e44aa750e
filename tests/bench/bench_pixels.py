"""Prints how fast pictures are decoded, shrunk and cut, on one thread and on several.

python tests/bench/bench_pixels.py [number of threads]

Beside it stands the same work in OpenCV where it is installed: decoding apart, the resize alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from sdft.dataset.pixels import decode_rgb, fit

NUM_PICTURES = 16
RESIZED = (683, 512)
CROP = (21, 0, 661, 512)


def main(num_threads: int) -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)
    picture = Image.fromarray(smooth).resize((4000, 3000), Image.Resampling.BICUBIC)
    file = BytesIO()
    picture.save(file, "JPEG", quality=90)
    rgb = np.asarray(picture)
    ours_s = best(lambda: fit(rgb, RESIZED, CROP, None))
    print(f"4000 x 3000 px to {RESIZED}: {ours_s * 1e3:.1f} ms", end="")
    try:
        import cv2
    except ImportError:
        print(" (OpenCV is not installed)")
    else:
        cv2.setNumThreads(1)
        theirs_s = best(lambda: cv2.resize(rgb, RESIZED, interpolation=cv2.INTER_AREA))
        print(f", OpenCV {theirs_s * 1e3:.1f} ms, ratio {theirs_s / ours_s:.2f}")
    contents = [file.getvalue()] * NUM_PICTURES
    single_s = best(lambda: [decode_and_fit(content) for content in contents])
    with ThreadPoolExecutor(num_threads) as threads:
        several_s = best(lambda: list(threads.map(decode_and_fit, contents)))
    print(
        f"decode + shrink + cut: {NUM_PICTURES / single_s:.1f} a second on one thread, "
        f"{NUM_PICTURES / several_s:.1f} on {num_threads}: "
        f"{single_s / several_s / num_threads:.2f} of one thread's times {num_threads}"
    )


def decode_and_fit(content: bytes) -> np.ndarray:
    return fit(decode_rgb(content), RESIZED, CROP, None)


def best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1)
