"""Gives every item a training resolution.

In: a DatasetIndex and the bucket settings of each dataset. Out: a BucketPlan and what had no place.
Reads no files and draws no random numbers, so the same input gives the same plan.

Letters in names: N images, K buckets, 2 = (width, height).
Source of every rule: sd-scripts' BucketManager (v0.10), both of its modes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdft.dataset.crops import centre_boxes
from sdft.dataset.records import (
    BucketPlan,
    BucketSettings,
    DatasetIndex,
    Item,
    Rejected,
    Size,
)
from sdft.dataset.tables import ItemTable, PlacementTable
from sdft.errors import ConfigError

MIN_SIDE_PX = 8
"""An image thinner than this is refused: 8 px make one latent pixel (three halvings in the VAE)."""

_IMAGES_AT_ONCE = 1 << 15
"""The arrays of so many images stay in the processor's cache: twice as fast as all at once."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Bucket and resized size of each image; int64 arrays of shape [N, 2]."""

    buckets_N2: np.ndarray
    """A side is 0 where the image is too small for any bucket."""
    resized_N2: np.ndarray


def bucket_list(settings: BucketSettings) -> tuple[Size, ...]:
    """Return the buckets there are before any image is seen, sorted.

    Empty with `bucket_no_upscale`, where each image makes its own; the resolution alone without
    buckets. No bucket's area is above the resolution's, except for the single one without buckets.

    Raises: ConfigError where the settings leave no bucket.
    """
    if not settings.enable_bucket:
        return (settings.resolution,)
    if settings.bucket_no_upscale:
        return ()
    step = settings.bucket_reso_steps
    max_area = settings.resolution[0] * settings.resolution[1]
    # The reference widens both limits to whole steps.
    smallest = settings.min_bucket_reso // step * step
    largest = -(-settings.max_bucket_reso // step) * step
    square = math.isqrt(max_area) // step * step
    sizes = {(square, square)}
    for width in range(max(smallest, step), largest + 1, step):
        height = min(largest, max_area // width // step * step)
        if height >= max(smallest, step):
            sizes |= {(width, height), (height, width)}
    if square == 0:
        raise ConfigError(
            what=f"no bucket fits in {settings.resolution[0]} x {settings.resolution[1]} px "
            f"in steps of {step} px",
            where="resolution, bucket_reso_steps",
            fix="make the resolution larger or the steps smaller",
        )
    return tuple(sorted(sizes))


def choose(sizes_N2: np.ndarray, settings: BucketSettings) -> Chosen:
    """Return every image's bucket, and its size after resizing and before cropping.

    Shapes: [N, 2] integers above 0 in; twice [N, 2] out.
    """
    sizes_N2 = np.asarray(sizes_N2, dtype=np.int64).reshape(-1, 2)
    buckets_N2, resized_N2 = np.empty_like(sizes_N2), np.empty_like(sizes_N2)
    buckets_K2 = np.array(bucket_list(settings), dtype=np.int64)
    for start in range(0, len(sizes_N2), _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        if len(buckets_K2) == 0:
            chosen = _choose_without_upscaling(sizes_N2[part], settings)
        else:
            chosen = _choose_from_list(sizes_N2[part], buckets_K2)
        buckets_N2[part], resized_N2[part] = chosen.buckets_N2, chosen.resized_N2
    return Chosen(buckets_N2, resized_N2)


def plan_buckets(
    index: DatasetIndex, settings_per_dataset: Sequence[BucketSettings]
) -> tuple[BucketPlan, list[Rejected]]:
    """Return where each item goes, and the items that are too small to go anywhere.

    Crops are centred.

    Raises: ConfigError where a dataset's settings leave no bucket.
    """
    items = ItemTable.of(index.items)
    rejected: list[Rejected] = []
    parts: list[PlacementTable] = []
    for dataset, settings in enumerate(settings_per_dataset):
        numbers_N = np.flatnonzero(items.places_N2[:, 0] == dataset)
        chosen = choose(items.sizes_N2[numbers_N], settings)
        too_small = (items.sizes_N2[numbers_N].min(axis=1, initial=MIN_SIDE_PX) < MIN_SIDE_PX) | (
            chosen.buckets_N2.min(axis=1, initial=1) == 0
        )
        for row in np.flatnonzero(too_small).tolist():
            item = items.row(int(numbers_N[row]))
            bucket_width, bucket_height = chosen.buckets_N2[row].tolist()
            reason = _why_too_small(item, (bucket_width, bucket_height), settings)
            rejected.append(_reject(item, reason))
        used = ~too_small
        buckets_N2, resized_N2 = chosen.buckets_N2[used], chosen.resized_N2[used]
        parts.append(
            PlacementTable(
                items=items,
                numbers_N=numbers_N[used],
                buckets_N2=buckets_N2,
                resized_N2=resized_N2,
                crops_N4=centre_boxes(resized_N2, buckets_N2),
            )
        )
    return BucketPlan(placements=_joined(parts, items)), rejected


def _joined(parts: Sequence[PlacementTable], items: ItemTable) -> PlacementTable:
    return PlacementTable(
        items=items,
        numbers_N=np.concatenate([part.numbers_N for part in parts]),
        buckets_N2=np.concatenate([part.buckets_N2 for part in parts]),
        resized_N2=np.concatenate([part.resized_N2 for part in parts]),
        crops_N4=np.concatenate([part.crops_N4 for part in parts]),
    )


def _choose_from_list(sizes_N2: np.ndarray, buckets_K2: np.ndarray) -> Chosen:
    """Take the bucket of the nearest width/height ratio, and the scale that just covers it."""
    # Whole columns of floats, and `take` with a mode: strided integers and checked indices
    # cost three times as long.
    widths, heights = sizes_N2[:, 0].astype(np.float64), sizes_N2[:, 1].astype(np.float64)
    ratios = widths / heights
    bucket_ratios = buckets_K2[:, 0] / buckets_K2[:, 1]
    # Of several buckets with one ratio the first counts: `unique` gives its index.
    known, first = np.unique(bucket_ratios, return_index=True)
    above = np.searchsorted(known, ratios)
    below = above - 1
    to_above = np.abs(known.take(above, mode="clip") - ratios)
    to_below = np.abs(known.take(below, mode="clip") - ratios)
    take_below = to_below < to_above
    # On a tie the bucket that stands first in the list wins; that need not be the lower ratio.
    tied = np.flatnonzero(to_below == to_above)
    low, high = first.take(below[tied], mode="clip"), first.take(above[tied], mode="clip")
    take_below[tied] = low < high
    picked = first.take(above - take_below, mode="clip")
    if len(known) < len(buckets_K2):
        _prefer_exact(picked, sizes_N2, buckets_K2)
    bucket_widths = buckets_K2[:, 0].astype(np.float64).take(picked)
    bucket_heights = buckets_K2[:, 1].astype(np.float64).take(picked)
    is_wider = ratios > bucket_ratios.take(picked)
    scale = np.where(is_wider, bucket_heights / heights, bucket_widths / widths)
    resized_N2 = np.empty_like(sizes_N2)
    resized_N2[:, 0] = widths * scale + 0.5
    resized_N2[:, 1] = heights * scale + 0.5
    return Chosen(buckets_K2.take(picked, axis=0), resized_N2)


def _prefer_exact(picked: np.ndarray, sizes_N2: np.ndarray, buckets_K2: np.ndarray) -> None:
    """Where an image is just as large as a bucket, write that bucket's number into `picked`."""
    for number, bucket in enumerate(buckets_K2):
        picked[(sizes_N2 == bucket).all(axis=1)] = number


def _choose_without_upscaling(sizes_N2: np.ndarray, settings: BucketSettings) -> Chosen:
    """Shrink to the area limit, along the side whose rounding keeps the ratio better.

    The bucket is the resized size cut down to whole steps, so up to step - 1 px fall off a side.
    """
    step = settings.bucket_reso_steps
    max_area = settings.resolution[0] * settings.resolution[1]
    resized_N2 = sizes_N2.copy()
    large = sizes_N2[:, 0] * sizes_N2[:, 1] > max_area
    ratios = sizes_N2[large, 0] / sizes_N2[large, 1]
    ideal_widths = np.sqrt(max_area * ratios)
    widths = _to_steps(ideal_widths, step)
    heights = _to_steps(max_area / ideal_widths, step)
    # A candidate with a side of 0 has an infinite error, or none that can be compared.
    with np.errstate(divide="ignore", invalid="ignore"):
        width_error = np.abs(widths / _to_steps(widths / ratios, step) - ratios)
        height_error = np.abs(_to_steps(heights * ratios, step) / heights - ratios)
    by_width = width_error < height_error
    resized_N2[large, 0] = np.where(by_width, widths, (heights * ratios + 0.5).astype(np.int64))
    resized_N2[large, 1] = np.where(by_width, (widths / ratios + 0.5).astype(np.int64), heights)
    return Chosen(resized_N2 - resized_N2 % step, resized_N2)


def _to_steps(lengths: np.ndarray, step: int) -> np.ndarray:
    """Round to whole pixels, then down to whole steps."""
    whole: np.ndarray = (lengths + 0.5).astype(np.int64)
    whole -= whole % step
    return whole


def _why_too_small(item: Item, bucket: Size, settings: BucketSettings) -> str:
    """Return the reason why an item gets no place, or an empty text."""
    width, height = item.size
    if min(item.size) < MIN_SIDE_PX:
        return (
            f"{width} x {height} px is too small: a side below {MIN_SIDE_PX} px "
            "is less than one pixel of a latent"
        )
    if min(bucket) == 0:
        return (
            f"{width} x {height} px fills no bucket without being enlarged: "
            f"a side is below the step of {settings.bucket_reso_steps} px (bucket_no_upscale)"
        )
    return ""


def _reject(item: Item, reason: str) -> Rejected:
    return Rejected(
        path=item.path, reason=reason, dataset=item.dataset, subset=item.subset, size=item.size
    )
