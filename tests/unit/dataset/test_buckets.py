"""Buckets are the reference's, whichever way they are computed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdft.dataset.buckets import bucket_list, choose, plan_buckets
from sdft.dataset.crops import random_box
from sdft.dataset.records import BucketSettings, DatasetIndex, Item, Size
from sdft.dataset.tables import PlacementTable
from sdft.errors import ConfigError
from tests.unit.dataset.textbook import choose_one, list_by_loop

MODES = [
    BucketSettings(resolution=(512, 512)),
    BucketSettings(resolution=(512, 768), bucket_reso_steps=8, min_bucket_reso=64),
    BucketSettings(resolution=(768, 768), bucket_reso_steps=32, max_bucket_reso=1536),
    BucketSettings(resolution=(640, 384), enable_bucket=False),
    BucketSettings(resolution=(512, 512), bucket_no_upscale=True),
    BucketSettings(resolution=(768, 640), bucket_no_upscale=True, bucket_reso_steps=8),
]


def one(size: Size, settings: BucketSettings) -> tuple[Size, Size]:
    chosen = choose(np.array([size]), settings)
    return tuple(chosen.buckets_N2[0].tolist()), tuple(chosen.resized_N2[0].tolist())


def item(size: Size, key: str = "a.png", dataset: int = 0) -> Item:
    return Item(
        key=key, path=Path(key), size=size, caption="", dataset=dataset, subset=0,
        num_repeats=1, file_bytes=1, mtime_ns=1,
    )  # fmt: skip


def index(*items: Item) -> DatasetIndex:
    return DatasetIndex(items=items, rejected=(), notices=())


def test_the_list_at_512_is_the_reference_list():
    half = [(256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640)]
    half.append((448, 576))
    mirrored = [(height, width) for width, height in half]
    assert bucket_list(BucketSettings(resolution=(512, 512))) == tuple(
        sorted([*half, (512, 512), *mirrored])
    )


@pytest.mark.parametrize(
    ("resolution", "largest", "count"),
    [
        ((512, 512), 1024, 17),
        ((640, 640), 1024, 17),
        ((768, 768), 1024, 19),
        ((512, 768), 1024, 19),
        ((1024, 1024), 2048, 41),
    ],
)
def test_the_number_of_buckets_is_the_reference_number(resolution, largest, count):
    settings = BucketSettings(resolution=resolution, max_bucket_reso=largest)
    assert len(bucket_list(settings)) == count
    assert list(bucket_list(settings)) == list_by_loop(settings)


@given(
    st.integers(8, 160), st.integers(8, 160), st.sampled_from([8, 16, 24, 32, 64]),
    st.integers(1, 40), st.integers(0, 200),
)  # fmt: skip
def test_every_bucket_obeys_the_limits(width, height, step, smallest_steps, more_steps):
    settings = BucketSettings(
        resolution=(width * 8, height * 8),
        bucket_reso_steps=step,
        min_bucket_reso=smallest_steps * step,
        max_bucket_reso=(smallest_steps + more_steps) * step,
    )
    buckets = bucket_list(settings)
    assert list(buckets) == list_by_loop(settings)
    assert all(side % step == 0 for bucket in buckets for side in bucket)
    assert all(w * h <= 64 * width * height for w, h in buckets)


def test_limits_that_are_no_whole_steps_are_widened():
    odd = BucketSettings(resolution=(512, 512), min_bucket_reso=300, max_bucket_reso=1000)
    even = BucketSettings(resolution=(512, 512), min_bucket_reso=256, max_bucket_reso=1024)
    assert bucket_list(odd) == bucket_list(even)


def test_a_resolution_below_one_step_is_an_error_with_a_fix():
    with pytest.raises(ConfigError, match="no bucket fits in 32 x 32 px in steps of 64 px"):
        bucket_list(BucketSettings(resolution=(32, 32)))


@pytest.mark.parametrize("settings", MODES, ids=repr)
def test_a_hundred_thousand_sizes_are_placed_as_the_textbook_loop_places_them(settings):
    draw = random.Random(7)
    sizes = [(draw.randint(1, 5000), draw.randint(1, 5000)) for _ in range(50_000)]
    # Common ratios and small sides meet ties and the borders of rounding far more often.
    sizes += [(draw.randint(1, 40) * 32, draw.randint(1, 40) * 32) for _ in range(30_000)]
    sizes += [(draw.randint(1, 700), draw.randint(1, 700)) for _ in range(20_000)]
    chosen = choose(np.array(sizes), settings)
    buckets = list(bucket_list(settings))
    expected = [choose_one(size, settings, buckets) for size in sizes]
    assert [tuple(b) for b in chosen.buckets_N2.tolist()] == [bucket for bucket, _ in expected]
    assert [tuple(r) for r in chosen.resized_N2.tolist()] == [resized for _, resized in expected]


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.sampled_from(MODES))
def test_a_resized_image_covers_its_bucket(width, height, settings):
    bucket, resized = one((width, height), settings)
    assert resized[0] >= bucket[0]
    assert resized[1] >= bucket[1]
    if settings.bucket_no_upscale:
        assert resized[0] * resized[1] <= max(
            width * height, 1.5 * settings.resolution[0] * settings.resolution[1]
        )
    else:
        assert resized[0] == bucket[0] or resized[1] == bucket[1]


def test_the_reference_example_1600x900():
    assert one((1600, 900), MODES[0]) == ((640, 384), (683, 384))
    plan, _ = plan_buckets(index(item((1600, 900))), [MODES[0]])
    assert plan.placements[0].crop == (21, 0, 661, 384)


def test_an_image_as_large_as_a_bucket_keeps_every_pixel():
    assert one((448, 576), MODES[0]) == ((448, 576), (448, 576))


def test_ratios_are_compared_not_symmetrically_as_in_the_reference():
    buckets = {size: size[0] / size[1] for size in bucket_list(MODES[0])}
    landscape, _ = one((1000, 480), MODES[0])
    portrait, _ = one((480, 1000), MODES[0])
    assert abs(buckets[landscape] - 1000 / 480) == pytest.approx(0.117, abs=5e-4)
    assert abs(buckets[portrait] - 480 / 1000) == pytest.approx(0.025, abs=5e-4)


def test_without_upscaling_a_small_image_keeps_its_size():
    settings = BucketSettings(resolution=(512, 512), bucket_no_upscale=True)
    assert one((200, 300), settings) == ((192, 256), (200, 300))
    assert one((60, 200), settings) == ((0, 192), (60, 200))


def test_an_image_that_fills_no_bucket_is_rejected_in_words():
    settings = BucketSettings(resolution=(512, 512), bucket_no_upscale=True)
    plan, rejected = plan_buckets(index(item((60, 200), "thin.png")), [settings])
    assert plan.placements == ()
    assert rejected[0].path == Path("thin.png")
    assert rejected[0].size == (60, 200)
    assert "60 x 200 px fills no bucket without being enlarged" in rejected[0].reason


@pytest.mark.parametrize("settings", MODES, ids=repr)
def test_a_single_pixel_is_rejected_in_every_mode(settings):
    plan, rejected = plan_buckets(index(item((1, 1)), item((900, 900), "b.png")), [settings])
    assert [placement.item.key for placement in plan.placements] == ["b.png"]
    assert "1 x 1 px is too small" in rejected[0].reason


def test_each_dataset_has_its_own_buckets():
    items = index(item((900, 900), "a.png", 0), item((900, 900), "a.png", 1), item((700, 400)))
    settings = [BucketSettings(resolution=(512, 512)), BucketSettings(resolution=(768, 768))]
    plan, rejected = plan_buckets(items, settings)
    assert rejected == []
    members = PlacementTable.of(plan.placements).by_bucket()
    assert {place: rows.tolist() for place, rows in members.items()} == {
        (0, (512, 512)): [0],
        (0, (640, 384)): [1],
        (1, (768, 768)): [2],
    }


def test_no_items_make_an_empty_plan():
    plan, rejected = plan_buckets(index(), [MODES[0]])
    assert (plan.placements, rejected) == ((), [])


def test_a_random_crop_stays_inside_and_reaches_both_ends():
    boxes = [random_box((70, 64), (64, 64), random.Random(seed)) for seed in range(200)]
    assert {box[0] for box in boxes} == set(range(7))
    assert {(box[1], box[3]) for box in boxes} == {(0, 64)}
