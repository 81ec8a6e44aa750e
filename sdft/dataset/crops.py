"""Which part of a resized image is kept.

Boxes are pixels of the already resized image: left, top, right, bottom.
"""

from __future__ import annotations

import random

import numpy as np

from sdft.dataset.records import Box, Size


def centre_box(resized: Size, bucket: Size) -> Box:
    """Return the middle of `resized`; of an odd surplus the extra pixel falls off right or below.

    Source: sd-scripts, offset = surplus // 2.
    """
    return _box_at((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2, bucket)


def random_box(resized: Size, bucket: Size, stream: random.Random) -> Box:
    """Return a part of `resized`, every place equally likely."""
    left = stream.randint(0, resized[0] - bucket[0])
    top = stream.randint(0, resized[1] - bucket[1])
    return _box_at(left, top, bucket)


def mirrored(pixels_HWC: np.ndarray) -> np.ndarray:
    """Return the image flipped left to right, as a contiguous copy."""
    return np.ascontiguousarray(pixels_HWC[:, ::-1])


def cropped_share(resized: Size, crop: Box) -> float:
    """Return how much of the resized image's area the crop cuts off, 0 .. 1."""
    kept_px = (crop[2] - crop[0]) * (crop[3] - crop[1])
    return 1 - kept_px / (resized[0] * resized[1])


def _box_at(left: int, top: int, size: Size) -> Box:
    assert min(left, top) >= 0, "a crop never reaches outside of the image"
    return left, top, left + size[0], top + size[1]
