"""Prints how long an index takes, beside opening every image with Pillow one after the other.

python tests/bench/bench_index.py [number of images]

The files are small and freshly written, so what counts is the program, not the disk.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from sdft.dataset.index import build_index
from sdft.dataset.records import SubsetSpec
from sdft.events import ignore


def main(num_images: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 384, 3), dtype=np.uint8)
    for extension in (".png", ".jpg", ".webp"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            first = folder / f"0{extension}"
            Image.fromarray(noise).save(first)
            for number in range(1, num_images):
                (folder / f"{number}{extension}").write_bytes(first.read_bytes())
            for number in range(num_images):
                (folder / f"{number}.txt").write_text("a girl, stage", encoding="utf-8")
            ours_s = best(partial(ours, folder))
            loop_s = best(partial(one_after_the_other, folder, extension))
        print(
            f"{num_images} {extension} files: {ours_s:.2f} s ({num_images / ours_s:.0f} a second), "
            f"Pillow one by one {loop_s:.2f} s, ratio {loop_s / ours_s:.1f}"
        )


def best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def ours(folder: Path) -> None:
    spec = SubsetSpec(image_dir=folder, caption_extension=".txt")
    assert build_index([[spec]], emit=ignore).rejected == ()


def one_after_the_other(folder: Path, extension: str) -> list[tuple[tuple[int, int], str]]:
    found = []
    for path in sorted(folder.glob(f"*{extension}")):
        with Image.open(path) as image:
            size = image.size
        found.append((size, path.with_suffix(".txt").read_text(encoding="utf-8")))
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
