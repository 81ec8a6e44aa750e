"""The bucket rules written as plain loops over one image, as an independent check."""

from __future__ import annotations

import math

from sdft.dataset.records import BucketSettings, Size


def list_by_loop(settings: BucketSettings) -> list[Size]:
    step = settings.bucket_reso_steps
    max_area = settings.resolution[0] * settings.resolution[1]
    side = int(math.sqrt(max_area) // step) * step
    sizes = {(side, side)}
    width = settings.min_bucket_reso
    while width <= settings.max_bucket_reso:
        height = min(settings.max_bucket_reso, int((max_area // width) // step) * step)
        if height >= settings.min_bucket_reso:
            sizes.add((width, height))
            sizes.add((height, width))
        width += step
    return sorted(sizes)


def choose_one(size: Size, settings: BucketSettings, buckets: list[Size]) -> tuple[Size, Size]:
    """Return (bucket, resized) of one image; a side of the bucket may be 0."""
    if settings.enable_bucket and settings.bucket_no_upscale:
        return _choose_no_upscale(size, settings)
    width, height = size
    ratio = width / height
    bucket = size if size in buckets else None
    if bucket is None:
        smallest = math.inf
        for candidate in buckets:
            error = abs(candidate[0] / candidate[1] - ratio)
            if error < smallest:
                smallest, bucket = error, candidate
    assert bucket is not None
    wider = ratio > bucket[0] / bucket[1]
    scale = bucket[1] / height if wider else bucket[0] / width
    return bucket, (int(width * scale + 0.5), int(height * scale + 0.5))


def _choose_no_upscale(size: Size, settings: BucketSettings) -> tuple[Size, Size]:
    step = settings.bucket_reso_steps
    max_area = settings.resolution[0] * settings.resolution[1]
    width, height = size
    ratio = width / height
    resized = size
    if width * height > max_area:
        ideal_width = math.sqrt(max_area * ratio)
        ideal_height = max_area / ideal_width
        width_1 = _to_steps(ideal_width, step)
        height_1 = _to_steps(width_1 / ratio, step)
        height_2 = _to_steps(ideal_height, step)
        width_2 = _to_steps(height_2 * ratio, step)
        error_1 = abs(width_1 / height_1 - ratio) if height_1 else math.inf
        error_2 = abs(width_2 / height_2 - ratio) if height_2 else math.inf
        if error_1 < error_2:
            resized = (width_1, int(width_1 / ratio + 0.5))
        else:
            resized = (int(height_2 * ratio + 0.5), height_2)
    return (resized[0] - resized[0] % step, resized[1] - resized[1] % step), resized


def _to_steps(length: float, step: int) -> int:
    whole = int(length + 0.5)
    return whole - whole % step
