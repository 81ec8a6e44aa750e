"""Whatever a file holds, the decoder gives upright RGB or a reason in words."""

from __future__ import annotations

import contextlib
import random
import struct
import warnings
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sdft.dataset import headers
from sdft.dataset.crops import mirrored
from sdft.dataset.pixels import UnreadableImage, decode_rgb, fit, read_header
from tests.unit.dataset.pictures import colours, monstrous_png, picture

LOSSLESS = ["PNG", "BMP", "TIFF"]
LOSSY = ["JPEG", "WEBP", "AVIF"]


def encoded(image: Image.Image, form: str, **save: object) -> bytes:
    file = BytesIO()
    image.save(file, form, **save)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("form", LOSSLESS)
def test_a_lossless_file_gives_its_pixels(form):
    image = colours((31, 17))
    assert np.array_equal(decode_rgb(encoded(image, form)), np.asarray(image))


@pytest.mark.parametrize("form", [*LOSSLESS, *LOSSY, "GIF"])
def test_header_and_pixels_agree_on_the_size(tmp_path, form):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(colours((67, 41)), form))
    assert read_header(path) == (67, 41)
    assert decode_rgb(path).shape == (41, 67, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_asks(tmp_path, form, orientation):
    image = colours((40, 24))
    quality = {} if form in LOSSLESS else {"quality": 95}
    content = encoded(image, form, exif=exif(orientation), **quality)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    (tmp_path / "a").write_bytes(content)
    assert read_header(tmp_path / "a") == expected.shape[1::-1]
    difference = np.abs(decode_rgb(content) - expected)
    # Lossy formats blur colours where they change fast; a wrong turn would be off by 100.
    assert difference.mean() < (0.1 if form in LOSSLESS else 6)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("value", "expected"), [(6, 6), (0, 1), (9, 1)])
def test_orientation_is_read_in_both_byte_orders_and_illegal_values_mean_upright(
    order, value, expected
):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = struct.pack(order + "IHHHIHH", 8, 1, 0x0112, 3, 1, value, 0)
    assert headers.orientation_of(mark + body) == expected
    assert headers.orientation_of(b"Exif\0\0" + mark + body) == expected
    assert headers.orientation_of((mark + body)[:-6]) == 1


@given(st.binary(max_size=60))
def test_any_exif_block_gives_a_legal_orientation(content):
    assert headers.orientation_of(content) in range(1, 9)
    assert headers.orientation_of(b"II*\0" + content) in range(1, 9)


def test_transparent_parts_lie_on_white():
    rgba = colours((8, 8)).convert("RGBA")
    rgba.putalpha(Image.fromarray(np.tile(np.array([0, 255] * 4, dtype=np.uint8), (8, 1))))
    rgb = decode_rgb(encoded(rgba, "PNG"))
    assert (rgb[:, 0::2] == 255).all()
    assert np.array_equal(rgb[:, 1::2], np.asarray(rgba)[:, 1::2, :3])


def test_half_transparent_black_is_grey():
    black = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.unique(decode_rgb(encoded(black, "PNG"))).tolist() == [127]


@pytest.mark.parametrize("mode", ["LA", "La", "RGBa", "PA"])
def test_rare_modes_with_alpha_lie_on_white(mode):
    from sdft.dataset.pixels import _to_rgb

    base = {"La": "LA", "RGBa": "RGBA"}.get(mode, mode)
    clear = Image.new("RGBA", (3, 3), (10, 10, 10, 0)).convert(base if base != "PA" else "RGBA")
    image = Image.new("PA", (3, 3), 0) if mode == "PA" else clear.convert(mode)
    assert (_to_rgb(image) == 255).all()


def test_a_palette_with_a_transparent_entry_lies_on_white():
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 0)
    rgb = decode_rgb(encoded(palette, "PNG", transparency=0))
    assert rgb[0, 0].tolist() == [255, 255, 255]
    assert rgb[1, 1].tolist() == [40, 50, 60]


def test_a_transparent_colour_of_a_plain_picture_lies_on_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    rgb = decode_rgb(encoded(image, "PNG", transparency=(9, 9, 9)))
    assert rgb[0].tolist() == [[1, 2, 3], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_modes_become_rgb(mode):
    image = colours((20, 10)).convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode_rgb(encoded(image, form)), expected)


def test_a_cmyk_jpeg_has_the_colours_that_it_shows():
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    rgb = decode_rgb(encoded(red, "JPEG", quality=95)).reshape(-1, 3).mean(axis=0)
    assert np.abs(rgb - (250, 10, 10)).max() < 6


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form):
    levels = np.array([[0, 257, 128 * 257, 65535, 129, 128]], dtype=np.uint16)
    rgb = decode_rgb(encoded(Image.fromarray(levels), form))
    assert rgb[0, :, 0].tolist() == [0, 1, 128, 255, 1, 0]
    assert (rgb[..., 0] == rgb[..., 2]).all()


def test_floats_of_either_range_are_read_and_others_refused():
    def tiff(*values: float) -> bytes:
        return encoded(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")

    assert decode_rgb(tiff(0, 0.5, 1))[0, :, 0].tolist() == [0, 128, 255]
    assert decode_rgb(tiff(0, 100, 255))[0, :, 0].tolist() == [0, 100, 255]
    for wrong in (tiff(-1, 1), tiff(0, 1000), tiff(0, float("nan"))):
        with pytest.raises(UnreadableImage, match=r"only 0\.\.1 or 0\.\.255 have a meaning"):
            decode_rgb(wrong)


def test_whole_numbers_of_32_bits_are_refused():
    image = Image.fromarray(np.array([[0, 1 << 20]], dtype=np.int32))
    with pytest.raises(UnreadableImage, match="more than 16 bits have no agreed white"):
        decode_rgb(encoded(image, "TIFF"))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_counts(form):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    extra = {"lossless": True} if form == "WEBP" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **extra)
    assert np.unique(decode_rgb(content).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


@pytest.mark.parametrize("form", [*LOSSLESS, *LOSSY, "GIF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_a_reason_in_words(tmp_path, form, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), form)
    path = tmp_path / "cut.png"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadableImage) as caught:
        decode_rgb(path)
    assert caught.value.problems[0].where == str(path)


def test_a_monstrous_file_is_refused_by_its_header(tmp_path):
    path = monstrous_png(tmp_path / "huge.png")
    for read in (read_header, decode_rgb):
        with pytest.raises(UnreadableImage, match="30000 x 30000 px are 900 million pixels"):
            read(path)


def test_a_large_but_legal_file_passes_without_a_warning(tmp_path):
    # Above Pillow's warning at 89 million pixels, below its limit.
    path = monstrous_png(tmp_path / "large.png", side_px=9600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_header(path) == (9600, 9600)
        headers.silence_pillow()
        Image.open(path).close()


def test_a_header_that_lies_about_the_size_is_refused():
    content = bytearray(encoded(colours((8, 8)), "PNG"))
    content[16:24] = struct.pack(">II", 4000, 4000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(UnreadableImage):
        decode_rgb(bytes(content))


@pytest.mark.parametrize("form", [*LOSSLESS, *LOSSY, "GIF"])
def test_damage_anywhere_gives_a_picture_or_a_reason_and_nothing_else(form):
    draw = random.Random(form)
    whole = encoded(colours((24, 24)), form)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        with contextlib.suppress(UnreadableImage):
            rgb = decode_rgb(bytes(damaged))
            assert rgb.dtype == np.uint8
            assert rgb.shape[2] == 3


def test_a_vanished_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode_rgb(tmp_path / "gone.png")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def far(ours: np.ndarray, theirs: np.ndarray) -> int:
    return int(np.abs(ours.astype(int) - theirs).max())


def whole(size: tuple[int, int]) -> tuple[int, int, int, int]:
    return 0, 0, *size


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.data())
def test_shrinking_averages_areas_as_opencv_does(height, width, data):
    size = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    rgb = noise(height, width)
    theirs = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    assert far(fit(rgb, size, whole(size), None), theirs) <= 1


def test_averages_are_exact_means():
    rgb = noise(12, 9)
    means = rgb.reshape(4, 3, 3, 3, 3).mean(axis=(1, 3))
    assert np.array_equal(fit(rgb, (3, 4), (0, 0, 3, 4), None), np.rint(means).astype(np.uint8))


def test_a_picture_shrunk_a_thousandfold_keeps_its_mean():
    white = np.full((1500, 3, 3), 255, dtype=np.uint8)
    assert fit(white, (1, 1), (0, 0, 1, 1), None).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("source", [(40, 30), (30, 40), (97, 53)])
@pytest.mark.parametrize("wanted", [(80, 60), (64, 31), (20, 15), (41, 29)])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("nearest", cv2.INTER_NEAREST),
        ("bilinear", cv2.INTER_LINEAR),
        ("linear", cv2.INTER_LINEAR),
        ("bicubic", cv2.INTER_CUBIC),
        ("cubic", cv2.INTER_CUBIC),
        ("area", cv2.INTER_AREA),
    ],
)
def test_named_methods_are_opencvs(source, wanted, name, theirs):
    rgb = noise(source[1], source[0])
    expected = cv2.resize(rgb, wanted, interpolation=theirs)
    assert far(fit(rgb, wanted, whole(wanted), name), expected) <= (0 if name == "nearest" else 1)


@pytest.mark.parametrize(
    ("name", "filter_"),
    [
        (None, Image.Resampling.LANCZOS),
        ("lanczos", Image.Resampling.LANCZOS),
        ("box", Image.Resampling.BOX),
    ],
)
def test_growing_and_the_other_methods_are_pillows(name, filter_):
    rgb = noise(30, 40)
    expected = np.asarray(Image.fromarray(rgb).resize((64, 48), filter_))
    assert np.array_equal(fit(rgb, (64, 48), (0, 0, 64, 48), name), expected)


def test_a_picture_that_grows_in_one_side_only_goes_through_lanczos():
    rgb = noise(30, 40)
    expected = np.asarray(Image.fromarray(rgb).resize((20, 31), Image.Resampling.LANCZOS))
    assert np.array_equal(fit(rgb, (20, 31), (0, 0, 20, 31), None), expected)


@pytest.mark.parametrize("name", [None, "lanczos", "nearest", "bilinear", "bicubic", "area", "box"])
@pytest.mark.parametrize("resized", [(24, 18), (60, 45), (40, 30)])
def test_a_crop_is_a_part_of_the_whole(name, resized):
    rgb = noise(30, 40)
    part = fit(rgb, resized, (3, 2, 19, 18), name)
    assert part.flags.c_contiguous
    assert np.array_equal(part, fit(rgb, resized, whole(resized), name)[2:18, 3:19])


def test_a_mirrored_picture_starts_at_the_right():
    assert mirrored(np.array([[[1], [2], [3]]], dtype=np.uint8)).ravel().tolist() == [3, 2, 1]


def test_colour_profiles_are_not_applied(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    path = picture(tmp_path / "a.png", (20, 10), icc_profile=profile)
    assert np.array_equal(decode_rgb(path), np.asarray(colours((20, 10))))
