"""Pictures that change on each use: cropped, coloured and mirrored by the use's own randomness."""

import random

import cv2
import numpy as np
import pytest

from sdft.dataset.augment import PictureJob, PictureRules, crop_unresized, draw_picture, geometry
from sdft.dataset.buckets import plan_buckets
from sdft.dataset.colours import apply_gamma, change_colours, turn_hue
from sdft.dataset.crops import Face, face_geometry, face_of
from sdft.dataset.records import BucketSettings, DatasetIndex, Item
from sdft.streams import Address
from tests.unit.dataset.pictures import colours, picture


def address(**parts):
    given = {"seed": 1, "epoch": 1, "dataset": 0, "subset": 0, "key": "a.png", "repeat": 0}
    return Address(**(given | parts))


def job_for(path, *, size=(90, 60), resized=(72, 48), crop=(4, 0, 68, 48), **rules):
    status = path.stat()
    return PictureJob(
        path=path,
        size=size,
        file_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        resized=resized,
        crop=crop,
        rules=PictureRules(**rules),
    )


@pytest.fixture
def path(tmp_path):
    return picture(tmp_path / "a.png", (90, 60))


def pixels(job, **parts):
    return draw_picture(job, address(**parts)).rgb_HWC


def test_a_use_gives_the_same_pixels_whenever_it_is_drawn(path):
    job = job_for(path, color_aug=True, random_crop=True, flip_aug=True)
    for repeat in range(20):
        assert np.array_equal(pixels(job, repeat=repeat), pixels(job, repeat=repeat))


def test_uses_differ_by_epoch_and_repeat_and_image(path):
    job = job_for(path, random_crop=True)
    first = pixels(job)
    others = [pixels(job, repeat=n) for n in range(1, 9)] + [pixels(job, epoch=2, key="b.png")]
    assert any(not np.array_equal(first, other) for other in others)


def test_without_rules_the_picture_is_the_planned_one(path):
    drawn = pixels(job_for(path))
    assert drawn.shape == (48, 64, 3)
    assert np.array_equal(drawn, pixels(job_for(path), epoch=7))


def test_a_random_crop_reaches_every_place_and_no_other(path):
    job = job_for(path, random_crop=True)
    boxes = [geometry(job, address(repeat=n)) for n in range(400)]
    assert {resized for resized, _ in boxes} == {(72, 48)}
    assert {box[0] for _, box in boxes} == set(range(9))
    assert {box[1] for _, box in boxes} == {0}


def test_half_of_the_uses_are_mirrored(path):
    plain, mirrored = pixels(job_for(path)), 0
    for repeat in range(200):
        drawn = pixels(job_for(path, flip_aug=True), repeat=repeat)
        is_mirrored = np.array_equal(drawn, plain[:, ::-1])
        assert is_mirrored or np.array_equal(drawn, plain)
        mirrored += is_mirrored
    assert 70 < mirrored < 130


def test_a_file_that_vanished_or_broke_is_a_problem_in_words(path):
    job = job_for(path)
    path.write_bytes(path.read_bytes()[:100])
    broken = draw_picture(job, address())
    assert broken.rgb_HWC is None
    assert "decoded" in broken.problem
    path.unlink()
    assert "vanished" in draw_picture(job, address()).problem


def test_a_file_that_changed_is_used_if_it_still_fits_and_said(path):
    job = job_for(path)
    colours((90, 60)).transpose(0).save(path)
    assert draw_picture(job, address()).has_changed
    colours((60, 90)).save(path)
    other_size = draw_picture(job, address())
    assert other_size.rgb_HWC is None
    assert "60 x 90 px now" in other_size.problem


# Colours.


def test_turning_the_hue_is_what_opencv_does_within_its_rounding():
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rgb[:8] = rgb[:8, :, :1]
    # OpenCV knows whole steps of 2 degrees, so 16 degrees are 8 of them.
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + 8) % 180
    theirs = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(int)
    difference = np.abs(turn_hue(rgb, 16.0).astype(int) - theirs)
    assert difference.mean() < 1.5
    assert np.array_equal(turn_hue(rgb, 0.0), rgb)
    assert np.array_equal(turn_hue(rgb[:8], 16.0), rgb[:8])


def test_gamma_is_that_of_sd_scripts():
    rgb = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    for gamma in (0.95, 1.0, 1.05):
        theirs = np.clip(rgb.astype(np.float64) ** gamma, 0, 255).astype(np.uint8)
        assert np.array_equal(apply_gamma(rgb, gamma), theirs)


def test_a_third_of_the_uses_change_colour():
    rgb = np.asarray(colours((16, 16)))
    changed = sum(
        not np.array_equal(change_colours(rgb, random.Random(n)), rgb) for n in range(1000)
    )
    assert 270 < changed < 390


# Faces.


def test_a_name_tells_of_a_face_only_by_four_numbers_at_its_end():
    assert face_of("a_100_120_40_50") == Face((100, 120), (40, 50))
    assert face_of("a_b_1_2_3_4") == Face((1, 2), (3, 4))
    for stem in ("a", "100_120_40_50", "a_x_120_40_50", "a_0_120_40_50", "a_10_12_0_0"):
        assert face_of(stem) is None


def reference_crop(size, bucket, face, times, draw):
    """The reference's own steps, for one scale and without chance in the place."""
    height, width = size[1], size[0]
    face_size = max(face.size)
    side = min(bucket)
    least = max(bucket[1] / height, bucket[0] / width)
    least = min(1.0, max(least, side / (face_size * times[1])))
    most = min(1.0, max(least, side / (face_size * times[0])))
    scale = least if least >= most else draw(least, most)
    new_height, new_width = int(height * scale + 0.5), int(width * scale + 0.5)
    box = []
    for target, length, centre in (
        (bucket[0], new_width, int(face.centre[0] * scale + 0.5)),
        (bucket[1], new_height, int(face.centre[1] * scale + 0.5)),
    ):
        start = max(0, min(centre - target // 2, length - target))
        box += [start, start + target]
    return (new_width, new_height), (box[0], box[2], box[1], box[3])


@pytest.mark.parametrize("times", [(2.0, 2.0), (1.0, 1.0), (3.0, 3.0)])
def test_a_face_is_cut_out_as_in_the_reference(times):
    rng = random.Random(5)
    for _ in range(300):
        size = (rng.randint(512, 1500), rng.randint(512, 1500))
        face = Face(
            (rng.randint(1, size[0]), rng.randint(1, size[1])),
            (rng.randint(1, 400), rng.randint(1, 400)),
        )
        ours = face_geometry(size, (512, 448), face, times, roams=False, stream=rng)
        assert ours == reference_crop(size, (512, 448), face, times, rng.uniform)


def test_a_crop_around_a_face_always_lies_within_the_image():
    rng = random.Random(6)
    for _ in range(2000):
        size = (rng.randint(20, 1500), rng.randint(20, 1500))
        face = Face((rng.randint(1, 2000), rng.randint(1, 2000)), (rng.randint(1, 400), 5))
        resized, box = face_geometry(
            size, (128, 256), face, (1.5, 4.0), roams=rng.random() < 0.5, stream=rng
        )
        assert 0 <= box[0] < box[2] <= resized[0]
        assert 0 <= box[1] < box[3] <= resized[1]
        assert (box[2] - box[0], box[3] - box[1]) == (128, 256)


def test_an_image_whose_name_tells_of_a_face_is_cut_around_it(tmp_path):
    path = picture(tmp_path / "a_300_200_50_50.png", (400, 300))
    job = job_for(path, size=(400, 300), crop=(0, 0, 64, 64), face_crop_aug_range=(2.0, 2.0))
    resized, box = geometry(job, address())
    assert resized == (256, 192)
    assert box == (160, 96, 224, 160)


# Without buckets.


def test_a_random_crop_without_buckets_leaves_large_images_at_their_size(tmp_path):
    sizes = [(300, 400), (256, 128), (100, 400)]
    items = tuple(
        Item(
            key=str(number),
            path=tmp_path / str(number),
            size=size,
            caption="",
            dataset=0,
            subset=0,
            num_repeats=1,
            file_bytes=1,
            mtime_ns=1,
        )
        for number, size in enumerate(sizes)
    )
    settings = BucketSettings(resolution=(256, 128), enable_bucket=False)
    plan, _ = plan_buckets(DatasetIndex(items=items, rejected=(), notices=()), [settings])
    assert crop_unresized(plan, ()).placements == plan.placements
    one, two, small = crop_unresized(plan, {(0, 0)}).placements
    assert (one.resized, one.crop) == ((300, 400), (22, 136, 278, 264))
    assert two.resized == (256, 128)
    assert small.resized == (256, 1024)
