"""Which part of a resized image is kept.

Boxes are pixels of the already resized image: left, top, right, bottom.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from sdft.dataset.captions import NUM_FACE_PARTS
from sdft.dataset.records import Box, Size

SMALLEST_SHAKEN_FACE_PX = 40
"""A smaller face is kept right in the middle. Source: sd-scripts."""


@dataclass(frozen=True, slots=True)
class Face:
    """A face in an image; pixels of the upright image before resizing."""

    centre: tuple[int, int]
    size: Size


def centre_boxes(resized_N2: np.ndarray, buckets_N2: np.ndarray) -> np.ndarray:
    """Return the middle of each image; of an odd surplus the extra pixel falls off right or below.

    Shapes: twice [N, 2] in, [N, 4] out.
    Source: sd-scripts, offset = surplus // 2.
    """
    corners_N2 = (resized_N2 - buckets_N2) // 2
    assert (corners_N2 >= 0).all(), "a crop never reaches outside of the image"
    return np.concatenate([corners_N2, corners_N2 + buckets_N2], axis=1)


def random_box(resized: Size, bucket: Size, stream: random.Random) -> Box:
    """Return a part of `resized`, every place equally likely."""
    left = stream.randint(0, resized[0] - bucket[0])
    top = stream.randint(0, resized[1] - bucket[1])
    return _box_at(left, top, bucket)


def face_of(stem: str) -> Face | None:
    """Return the face that a stem tells of by ending in `_cx_cy_w_h`: its centre and its size."""
    parts = stem.split("_")
    if len(parts) <= NUM_FACE_PARTS:
        return None
    numbers = parts[-NUM_FACE_PARTS:]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    left, top, width, height = map(int, numbers)
    return Face((left, top), (width, height)) if left > 0 and max(width, height) > 0 else None


def face_geometry(
    size: Size,
    bucket: Size,
    face: Face,
    times: tuple[float, float],
    *,
    roams: bool,
    stream: random.Random,
) -> tuple[Size, Box]:
    """Return how an image is resized and cut so that its face stands in the middle.

    The bucket's shorter side is between `times[0]` and `times[1]` of the face's longer one, as far
    as the image reaches without being enlarged. With `roams` the place is drawn around the face,
    most often near to it.

    Source: sd-scripts' crop around faces. It fails where the image is smaller than the bucket;
    here such an image is enlarged until it covers it.
    """
    face_px = max(face.size)
    side_px = min(bucket)
    covering = max(bucket[0] / size[0], bucket[1] / size[1])
    smallest = max(covering, min(1.0, side_px / (face_px * times[1])))
    largest = max(smallest, min(1.0, side_px / (face_px * times[0])))
    scale = smallest if smallest >= largest else stream.uniform(smallest, largest)
    resized = (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))
    starts = [0, 0]
    for axis in (1, 0):
        middle = int(face.centre[axis] * scale + 0.5)
        start = middle - bucket[axis] // 2
        if roams:
            reach = max(resized[axis] - middle, middle)
            start += stream.randint(0, reach) + stream.randint(0, reach) - reach
        elif (
            times[0] != times[1] and face_px > side_px // 10 and face_px >= SMALLEST_SHAKEN_FACE_PX
        ):
            start += stream.randint(-face_px // 20, face_px // 20)
        starts[axis] = max(0, min(start, resized[axis] - bucket[axis]))
    return resized, _box_at(starts[0], starts[1], bucket)


def mirrored(pixels_HWC: np.ndarray) -> np.ndarray:
    """Return the image flipped left to right, as a contiguous copy."""
    return np.ascontiguousarray(pixels_HWC[:, ::-1])


def _box_at(left: int, top: int, size: Size) -> Box:
    assert min(left, top) >= 0, "a crop never reaches outside of the image"
    return left, top, left + size[0], top + size[1]
