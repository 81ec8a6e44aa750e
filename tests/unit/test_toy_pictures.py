from __future__ import annotations

from PIL import Image

from tests.toy_pictures import COLOURS, SHAPES, draw, plan_pictures, write_pictures


def test_the_first_nine_pictures_all_differ_in_size(tmp_path):
    sizes = set()
    for path in write_pictures(tmp_path, 9, side_px=64):
        with Image.open(path) as picture:
            sizes.add(picture.size)
    assert len(sizes) == 9


def test_the_same_seed_gives_the_same_pictures(tmp_path):
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 4, side_px=32, seed=3)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert plan_pictures(9, side_px=64, seed=1) != plan_pictures(9, side_px=64, seed=2)


def test_each_picture_has_a_caption_beside_it_that_says_what_it_shows(tmp_path):
    for path in write_pictures(tmp_path, 12, side_px=32, caption_extension=".caption"):
        caption = path.with_suffix(".caption").read_text(encoding="utf-8")
        _, colour, shape = path.stem.split("-")
        assert f"{colour} {shape} on a" in caption


def test_captions_do_not_repeat_within_a_data_set():
    captions = [picture.caption for picture in plan_pictures(600, side_px=64, seed=1)]
    assert len(set(captions)) == 600


def test_every_shape_is_seen_on_its_ground():
    pictures = plan_pictures(600, side_px=64, seed=1)
    for shape in SHAPES:
        picture = next(p for p in pictures if p.shape == shape and p.extent == "big")
        image = draw(picture)
        assert image.mode == "RGB"
        assert image.size == picture.size
        assert image.getpixel((0, 0)) == COLOURS[picture.ground]
        counts = {colour: count for count, colour in image.getcolors(1 << 20)}
        share = counts[COLOURS[picture.colour]] / (picture.size[0] * picture.size[1])
        assert 0.04 < share < 0.75
