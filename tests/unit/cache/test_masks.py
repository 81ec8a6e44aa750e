"""A mask goes the way of its picture, is kept small, and is never silently left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sdft.cache.digests import FileDigests
from sdft.cache.masks import MaskSource, cache_masks
from sdft.cache.store import TensorStore
from sdft.dataset.masks import decode_mask, find_masks, fit_mask
from sdft.dataset.pixels import decode_rgb, fit
from sdft.errors import DataError
from tests.unit.cache.pictures import placement, save_picture


def save_alpha(path, alpha_HW, **save):
    rgba = np.zeros((*alpha_HW.shape, 4), dtype=np.uint8)
    rgba[..., 3] = alpha_HW
    Image.fromarray(rgba).save(path, **save)


def half_mask(size, left=255, right=0):
    width, height = size
    mask = np.full((height, width), right, dtype=np.uint8)
    mask[:, : width // 2] = left
    return mask


def cached(tmp_path, placements, sources, **options):
    store = TensorStore(tmp_path / "masks")
    with FileDigests(tmp_path / "digests.sqlite") as digests:
        result = cache_masks(placements, sources, store=store, digests=digests, **options)
    return result, store


def test_a_mask_is_cut_where_its_picture_is_cut(tmp_path):
    """The mask of a red patch covers the red patch after resizing and cropping."""
    rgb = np.zeros((90, 200, 3), dtype=np.uint8)
    rgb[20:60, 70:150, 0] = 255
    Image.fromarray(rgb).save(tmp_path / "a.png")
    save_picture_of_mask = Image.fromarray(rgb[..., 0])
    save_picture_of_mask.save(tmp_path / "m.png")
    place = placement(tmp_path / "a.png", bucket=(64, 64))
    result, store = cached(tmp_path, [place], [MaskSource(path=tmp_path / "m.png", kind="picture")])
    fitted = fit(decode_rgb(tmp_path / "a.png"), place.resized, place.crop, None)[..., 0]
    cells = fitted.reshape(8, 8, 8, 8).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(store.read(result.keys[0]), cells, atol=1e-3)
    assert store.read(result.keys[0]).shape == (8, 8)


def test_alpha_counts_where_the_picture_is_opaque_and_everywhere_without_transparency(tmp_path):
    save_alpha(tmp_path / "a.png", half_mask((64, 64)))
    mask = decode_mask((tmp_path / "a.png").read_bytes(), "alpha")
    cells = fit_mask(mask, (64, 64), (0, 0, 64, 64))
    assert cells[:, :4].min() == 1.0
    assert cells[:, 4:].max() == 0.0
    save_picture(tmp_path / "b.png", (16, 8), seed=1)
    plain = decode_mask((tmp_path / "b.png").read_bytes(), "alpha")
    assert plain.shape == (8, 16)
    assert plain.min() == 255


def test_a_palettes_clear_colour_is_transparent(tmp_path):
    image = Image.new("P", (16, 16))
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.putpixel((3, 5), 1)
    image.save(tmp_path / "p.png", transparency=0)
    mask = decode_mask((tmp_path / "p.png").read_bytes(), "alpha")
    assert mask[5, 3] == 255
    assert mask.sum() == 255


def test_alpha_is_turned_as_exif_asks(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_alpha(tmp_path / "a.png", half_mask((32, 16)), exif=exif)
    mask = decode_mask((tmp_path / "a.png").read_bytes(), "alpha")
    assert mask.shape == (32, 16)
    assert mask[:16].min() == 255
    assert mask[16:].max() == 0


def test_a_mask_may_be_larger_than_its_picture_but_not_of_another_shape(tmp_path):
    save_picture(tmp_path / "a.png", (64, 64), seed=1)
    place = placement(tmp_path / "a.png")
    Image.fromarray(half_mask((256, 256))).save(tmp_path / "large.png")
    source = MaskSource(path=tmp_path / "large.png", kind="picture")
    result, store = cached(tmp_path, [place], [source])
    assert store.read(result.keys[0]).tolist() == [[1.0] * 4 + [0.0] * 4] * 8
    Image.fromarray(half_mask((64, 32))).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match=r"64 x 32 px and its picture 64 x 64 px"):
        cached(tmp_path, [place], [MaskSource(path=tmp_path / "wide.png", kind="picture")])


def test_masks_are_made_once_and_again_when_the_file_changes(tmp_path):
    save_picture(tmp_path / "a.png", (32, 32), seed=1)
    place = placement(tmp_path / "a.png")
    mask = tmp_path / "m.png"
    Image.fromarray(half_mask((32, 32))).save(mask)
    sources = [MaskSource(path=mask, kind="picture")]
    first, _ = cached(tmp_path, [place], sources)
    again, _ = cached(tmp_path, [place], sources)
    assert first.keys == again.keys
    Image.fromarray(half_mask((32, 32), left=0, right=255)).save(mask)
    changed, store = cached(tmp_path, [place], sources)
    assert changed.keys != first.keys
    assert store.read(changed.keys[0])[0, 0] == 0.0
    other_crop = replace(place, bucket=(24, 24), crop=(0, 0, 24, 24))
    assert cached(tmp_path, [other_crop], sources)[0].keys != changed.keys


def test_a_placement_without_a_mask_has_no_key(tmp_path):
    save_picture(tmp_path / "a.png", (32, 32), seed=1)
    result, _ = cached(tmp_path, [placement(tmp_path / "a.png")], [None])
    assert result.keys == (None,)
    assert (result.made, result.reused) == (0, 0)


def test_a_mask_that_cannot_be_read_stops_the_pass_by_name(tmp_path):
    save_picture(tmp_path / "a.png", (32, 32), seed=1)
    (tmp_path / "m.png").write_bytes(b"nonsense")
    sources = [MaskSource(path=tmp_path / "m.png", kind="picture")]
    with pytest.raises(DataError, match=r"m\.png: the file holds text(.|\n)*1 of 1 masks"):
        cached(tmp_path, [placement(tmp_path / "a.png")], sources)
    gone = [MaskSource(path=tmp_path / "gone.png", kind="picture")]
    with pytest.raises(DataError, match="cannot be read"):
        cached(tmp_path, [placement(tmp_path / "a.png")], gone)


def test_an_empty_mask_is_said(tmp_path):
    events = []
    save_picture(tmp_path / "a.png", (32, 32), seed=1)
    Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(tmp_path / "m.png")
    sources = [MaskSource(path=tmp_path / "m.png", kind="picture")]
    cached(tmp_path, [placement(tmp_path / "a.png")], sources, emit=events.append)
    assert ["mask" for event in events if getattr(event, "topic", "") == "mask"] == ["mask"]


def test_mask_pictures_are_found_by_their_place_in_the_folder(tmp_path):
    for name in ("a.png", "b.txt", "in/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert set(find_masks(tmp_path, recursive=False)) == {"a"}
    assert set(find_masks(tmp_path, recursive=True)) == {"a", "in/c"}
