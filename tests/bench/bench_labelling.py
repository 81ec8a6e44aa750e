"""How fast the labelling pipeline is beside bare decoding and resizing, with a model that takes
no time.

Run: python tests/bench/bench_labelling.py [NUM_IMAGES [ROUNDS]]
Goal: 0.9 of the bare rate, on all cores.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from sdft.dataset.image_list import list_images
from sdft.dataset.pixels import decode_rgb
from sdft.dataset.write_log import WriteLog
from sdft.events import ignore
from sdft.jobs.labelling import plan_tasks
from sdft.labelers.preprocess import white_square
from sdft.labelers.runner import default_workers, label_images
from sdft.labelers.sinks import TextFiles

GOAL = 0.9

SIDES_PX = ((1024, 768), (768, 1152), (1600, 1200), (640, 640))
"""Of photographs as people collect them."""


class Instant:
    """A tagger that knows the answer at once."""

    title, fixed_batch, first_batch = "instant", None, 8

    def prepare(self, rgb_HWC):
        return white_square(rgb_HWC, 448)

    def label(self, batch):
        return [("1girl", "smile", "blue sky")] * len(batch)


def make_images(folder: Path, num_images: int) -> None:
    draw = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIDES_PX):
        coarse = draw.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", quality=92)
    for number in range(len(SIDES_PX), num_images):
        shutil.copy(folder / f"{number % len(SIDES_PX)}.jpg", folder / f"{number}.jpg")


def bare_rate(folder: Path) -> float:
    """Images per second of decoding and resizing in as many threads as the pipeline has."""
    paths = sorted(folder.glob("*.jpg"))
    labeler = Instant()
    start_s = time.perf_counter()
    with ThreadPoolExecutor(default_workers()) as threads:
        for _ in threads.map(lambda path: labeler.prepare(decode_rgb(path)), paths):
            pass
    return len(paths) / (time.perf_counter() - start_s)


def pipeline_rate(folder: Path, attempt: int) -> float:
    """Images per second of the whole way, one file a picture flushed to the disk."""
    log = WriteLog(line="bench", settings=f"attempt {attempt}")
    sink = TextFiles(log=log, extension=".txt", separator=", ")
    start_s = time.perf_counter()
    plan = plan_tasks(list_images([str(folder)]), sink, ignore)
    result = label_images(plan.todo, Instant(), write=sink.write, stage="bench", emit=ignore)
    assert result.num_done == len(list(folder.glob("*.txt")))
    return result.num_done / (time.perf_counter() - start_s)


def main(num_images: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, num_images)
        bare, piped = [], []
        # In turns, and each pair compared by itself: a machine that slows down slows both.
        for attempt in range(rounds):
            bare.append(bare_rate(folder))
            piped.append(pipeline_rate(folder, attempt))
    ratios = [through / alone for alone, through in zip(bare, piped, strict=True)]
    print(f"{default_workers()} threads, {num_images} photographs, median of {rounds} rounds")
    print(f"decode and resize alone  {median(bare):7.1f} images/s")
    print(f"the whole pipeline       {median(piped):7.1f} images/s")
    print(f"ratio                    {median(ratios):7.2f}  (goal {GOAL})")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(*(arguments + [400, 5][len(arguments) :]))
