"""Pictures that show the same are found under any name, size, quality or side."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from sdft.cache.looks import looks_of
from sdft.dataset.lookalikes import look_of, mirrored, pairs_alike
from sdft.events import StageProgress, ignore


def photo(seed, size=(320, 240)):
    """A picture of soft blobs, as unlike others as photographs are."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def again(picture, *, size=None, quality=60, crop=0.0, blur=0.0):
    """Save a picture once more, as the web does."""
    if crop:
        width, height = picture.size
        cut = (int(width * crop), int(height * crop))
        picture = picture.crop((*cut, width - cut[0], height - cut[1]))
    picture = picture.filter(ImageFilter.GaussianBlur(blur)).resize(size or picture.size)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out)


def look(picture):
    return look_of(np.asarray(picture.convert("RGB")))


def pairs(held_out, train):
    found = pairs_alike(
        {name: look(picture) for name, picture in held_out.items()},
        {name: look(picture) for name, picture in train.items()},
    )
    return [(pair.held_out, pair.train, pair.kind) for pair in found]


@pytest.mark.parametrize(
    "change",
    [{"quality": 30}, {"size": (200, 150)}, {"size": (640, 480)}, {"crop": 0.02}, {"blur": 2.0}],
    ids=str,
)
def test_a_copy_is_found_among_two_hundred_others(change):
    train = {f"{number}": photo(number) for number in range(200)}
    assert pairs({"copy": again(photo(17), **change)}, train) == [("copy", "17", "alike")]


def test_a_mirrored_copy_is_found_too():
    train = {f"{number}": photo(number) for number in range(50)}
    copy = again(photo(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert pairs({"copy": copy}, train) == [("copy", "3", "mirrored")]
    assert mirrored(mirrored(look(photo(3)))) == look(photo(3))


def test_other_pictures_are_no_pairs_and_plain_ones_only_by_their_colour():
    assert pairs({"new": photo(1000)}, {f"{n}": photo(n) for n in range(200)}) == []
    plain = {name: Image.new("RGB", (64, 64), name) for name in ("red", "navy", "white")}
    assert pairs({"also red": Image.new("RGB", (90, 64), "red")}, plain) == [
        ("also red", "red", "alike")
    ]
    assert pairs({}, plain) == pairs(plain, {}) == []


def thing(colour, ground, *, is_cut=False, side=256):
    """A disc on a plain ground; a part of it may be cut out."""
    picture = Image.new("RGB", (side, side), ground)
    drawing = ImageDraw.Draw(picture)
    drawing.ellipse((80, 80, 176, 176), fill=colour)
    if is_cut:
        drawing.ellipse((120, 92, 192, 164), fill=ground)
    return picture


def test_different_things_on_one_plain_ground_are_no_pairs_but_their_copies_are():
    train = {
        f"{colour} {kind}": thing(colour, "white", is_cut=kind == "cut")
        for colour in ("red", "orange", "darkred")
        for kind in ("disc", "cut")
    }
    for name, picture in train.items():
        copy = again(picture, quality=40, crop=0.01)
        assert pairs({"copy": copy}, train) == [("copy", name, "alike")]
    faint = thing((250, 250, 250), (253, 253, 253))
    assert pairs({"copy": again(faint, quality=40)}, {"faint": faint}) == [
        ("copy", "faint", "alike")
    ]


def test_each_picture_is_decoded_once_for_all_runs(tmp_path):
    paths = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        photo(number).save(path)
        paths.append(path)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    every = [*paths, tmp_path / "broken.png", tmp_path / "gone.png"]
    cache = tmp_path / "cache"
    first = looks_of(every, folder=cache, emit=ignore, max_workers=2)
    assert set(first) == set(paths)
    # The digests of young files are not remembered: they may still be written.
    for path in paths:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    looks_of(paths, folder=cache, emit=ignore, max_workers=2)
    said = []
    second = looks_of(paths, folder=cache, emit=said.append, max_workers=2)
    assert second == first
    assert not [event for event in said if isinstance(event, StageProgress)]
