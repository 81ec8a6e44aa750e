"""Small pictures with a plan, and an encoder that needs no torch, for the cache's tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sdft.dataset.records import BucketPlan, Item, Placement, Size


def save_picture(path: Path, size: Size, *, seed: int) -> None:
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def placement(path: Path, *, subset: int = 0, bucket: Size | None = None) -> Placement:
    """Place a picture in the middle of a bucket, by default of its own size cut to whole cells."""
    with Image.open(path) as image:
        width, height = image.size
    bucket = bucket or (width // 8 * 8, height // 8 * 8)
    scale = max(bucket[0] / width, bucket[1] / height)
    resized = (int(width * scale + 0.5), int(height * scale + 0.5))
    left, top = (resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2
    status = path.stat()
    item = Item(
        key=path.name,
        path=path,
        size=(width, height),
        caption="",
        dataset=0,
        subset=subset,
        num_repeats=1,
        file_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )
    crop = (left, top, left + bucket[0], top + bucket[1])
    return Placement(item=item, bucket=bucket, resized=resized, crop=crop)


def plan_of(paths: Sequence[Path]) -> BucketPlan:
    return BucketPlan(placements=tuple(placement(path) for path in paths))


class CellMeans:
    """Means of 8 x 8 px cells: deterministic, position by position, like a VAE's encoder.

    The first four channels are the mean (red, green, blue, grey), the other four the
    log-variance, a constant -2.
    """

    def __init__(self) -> None:
        self.num_pictures = 0
        self.batch_sizes: list[int] = []
        self.slow_s = 0.0

    def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
        time.sleep(self.slow_s)
        num, height, width, _ = rgb_BHWC.shape
        self.num_pictures += num
        self.batch_sizes.append(num)
        cells = rgb_BHWC.reshape(num, height // 8, 8, width // 8, 8, 3).mean(axis=(2, 4)) / 255
        means = np.concatenate([cells, cells.mean(axis=3, keepdims=True)], axis=3)
        moments = np.concatenate([means, np.full_like(means, -2.0)], axis=3)
        moments_BChw = moments.transpose(0, 3, 1, 2).astype(np.float32)
        return lambda: moments_BChw

    def explain_not_finite(self) -> tuple[str, str]:
        return "the toy overflows", "none"
