"""Taggers on real ONNX files: what the model sees, and what it says."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from sdft.labelers.preprocess import white_square
from sdft.labelers.selection import TagChoice
from sdft.labelers.taggers import open_tagger
from tests.tensor.labelers.onnx_models import (
    MAPPING_ROWS,
    WD14_ROWS,
    expected,
    save_danbooru,
    save_mapping,
    save_wd14,
)
from tests.tensor.labelers.pictures import picture, prepared

SIZES = [(700, 500), (449, 900), (448, 448), (447, 300), (1, 300), (2000, 1), (31, 7), (896, 896)]
"""Even, odd, one pixel wide, exactly the model's size, an exact multiple of it."""

MODES = ["RGB", "RGBA", "P", "PA", "L", "LA"]


def upright_on_white(path):
    """The picture by Pillow's own means: turned, transparent parts on white."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))


def opencv_square(rgb, side):
    """Return the reference's preprocessing and whether it averaged areas."""
    height, width = rgb.shape[:2]
    full = max(height, width)
    top, left = (full - height) // 2, (full - width) // 2
    square = cv2.copyMakeBorder(
        np.ascontiguousarray(rgb[:, :, ::-1]),
        top,
        full - height - top,
        left,
        full - width - left,
        cv2.BORDER_CONSTANT,
        value=(255, 255, 255),
    )
    if full >= side:
        return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), full > side
    enlarged = Image.fromarray(square).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(enlarged), False


@pytest.fixture(scope="module")
def wd14(module_folder):
    folder = save_wd14(module_folder("wd14"))
    return open_tagger(folder, TagChoice())[0]


@pytest.mark.parametrize("mode", MODES)
def test_wd14_sees_what_opencv_makes_of_the_picture(tmp_path, wd14, mode):
    for size in SIZES:
        path = tmp_path / f"{mode}-{size[0]}x{size[1]}.png"
        picture(path, mode, size)
        wanted, averaged = opencv_square(upright_on_white(path), 448)
        (seen,) = wd14.model_input([prepared(wd14, path)])
        assert seen.dtype == np.float32
        difference = np.abs(seen - wanted.astype(np.float32)).max()
        assert difference <= (1 if averaged else 0), (mode, size, difference)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_wd14_sees_a_turned_picture_upright(tmp_path, wd14, orientation):
    path = tmp_path / "turned.png"
    picture(path, "RGB", (300, 200), orientation=orientation)
    wanted, _ = opencv_square(upright_on_white(path), 448)
    (seen,) = wd14.model_input([prepared(wd14, path)])
    assert np.array_equal(seen, wanted.astype(np.float32))


def test_a_strip_of_30_000_px_needs_no_square_of_gigabytes(wd14):
    for shape in ((3, 30_000, 3), (30_000, 3, 3)):
        square = wd14.prepare(np.zeros(shape, dtype=np.uint8))
        square = square if shape[0] == 3 else square.transpose(1, 0, 2)
        assert square.shape == (448, 448, 3)
        assert (square[:223] == 255).all()
        assert (square[225:] == 255).all()
        # The strip lies on the border of two rows of 67 px each; 2 of its 3 px are in one.
        assert square.min() == 247


def test_a_side_that_shrinks_first_gives_the_same_picture(monkeypatch):
    draw = np.random.default_rng(0)
    for shape in ((600, 901, 3), (901, 600, 3), (900, 900, 3)):
        rgb = draw.integers(0, 256, shape, dtype=np.uint8)
        monkeypatch.setattr("sdft.labelers.preprocess.MAX_SQUARE_PX", 8192)
        at_once = white_square(rgb, 448).astype(int)
        monkeypatch.setattr("sdft.labelers.preprocess.MAX_SQUARE_PX", 500)
        assert np.abs(white_square(rgb, 448) - at_once).max() <= 1


def test_the_mapping_form_gets_channels_first_from_minus_one_to_one(tmp_path):
    tagger, _ = open_tagger(save_mapping(tmp_path / "m"), TagChoice())
    path = tmp_path / "a.png"
    picture(path, "RGBA", (200, 447))
    wanted, _ = opencv_square(upright_on_white(path), 448)
    (seen,) = tagger.model_input([prepared(tagger, path)])
    levels = wanted.transpose(2, 0, 1).astype(np.float32)
    assert np.array_equal(seen, levels / np.float32(127.5) - np.float32(1))


def test_deepdanbooru_gets_the_picture_fitted_with_its_edges_repeated(tmp_path):
    tagger, _ = open_tagger(save_danbooru(tmp_path / "d"), TagChoice())
    for size in [(1024, 700), (640, 901), (512, 512)]:
        path = tmp_path / f"{size[0]}.png"
        picture(path, "RGB", size)
        rgb = upright_on_white(path)
        scale = min(512 / size[0], 512 / size[1])
        fitted = cv2.resize(
            rgb, (round(size[0] * scale), round(size[1] * scale)), interpolation=cv2.INTER_AREA
        )
        height, width = fitted.shape[:2]
        top, left = (512 - height) // 2, (512 - width) // 2
        wanted = cv2.copyMakeBorder(
            fitted, top, 512 - height - top, left, 512 - width - left, cv2.BORDER_REPLICATE
        )
        (seen,) = tagger.model_input([prepared(tagger, path)])
        difference = np.abs(seen - wanted.astype(np.float32) / np.float32(255)).max()
        assert difference <= (0 if scale == 1 else 1.001 / 255)


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_probabilities_are_the_model_s_whatever_its_batch(tmp_path, batch):
    tagger, _ = open_tagger(save_wd14(tmp_path / "w", batch=batch), TagChoice())
    assert tagger.fixed_batch == batch
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        picture(path, "RGB", (40 + n, 30), seed=n)
    images = [prepared(tagger, path) for path in paths]
    groups = [[image] for image in images] if batch == 1 else [images]
    said = np.concatenate([tagger.probabilities(group) for group in groups])
    seen = np.concatenate([tagger.model_input(group) for group in groups])
    # Runtimes sum 200,000 levels in float32, each in its own order.
    np.testing.assert_allclose(said, expected(seen, len(WD14_ROWS)), atol=1e-3)


def test_logits_of_the_mapping_form_become_probabilities(tmp_path):
    tagger, _ = open_tagger(save_mapping(tmp_path / "m"), TagChoice())
    path = tmp_path / "a.png"
    picture(path, "RGB", (64, 64))
    image = prepared(tagger, path)
    seen = tagger.model_input([image]).transpose(0, 2, 3, 1)
    said = tagger.probabilities([image])
    np.testing.assert_allclose(said, expected(seen, len(MAPPING_ROWS)), atol=1e-3)


def test_tags_come_out_of_the_whole_way(tmp_path):
    choice = TagChoice(thresh=0.0, use_rating_tags=True, thresholds={"character": 2})
    tagger, note = open_tagger(save_wd14(tmp_path / "w"), choice, device="cpu")
    path = tmp_path / "a.png"
    picture(path, "RGB", (64, 64))
    ((rating, *tags),) = tagger.label([prepared(tagger, path)])
    assert rating in {name for name, category in WD14_ROWS if category == 9}
    assert tags == [name for name, category in WD14_ROWS if category == 0]
    assert (tagger.title, note) == ("WD14 tagger on cpu", "")


def test_each_default_threshold_is_its_form_s(tmp_path):
    for folder, thresh in ((save_wd14(tmp_path / "w"), 0.35), (save_danbooru(tmp_path / "d"), 0.5)):
        path = tmp_path / "a.png"
        picture(path, "RGB", (64, 64))
        by_default, _ = open_tagger(folder, TagChoice())
        named, _ = open_tagger(folder, TagChoice(thresh=thresh))
        image = prepared(named, path)
        assert by_default.label([image]) == named.label([image])
