"""Sizes of a Parquet file stand in for opening every image."""

from __future__ import annotations

import os

import pyarrow
import pytest
from pyarrow import parquet

from sdft.cache.image_memory import image_memory
from sdft.dataset import headers
from sdft.dataset.augment import PictureJob, PictureRules, draw_picture
from sdft.dataset.buckets import plan_buckets
from sdft.dataset.index import build_index
from sdft.dataset.records import BucketSettings, SubsetSpec
from sdft.errors import DataError
from sdft.events import ignore
from sdft.streams import Address
from tests.unit.dataset.pictures import picture


def write(folder, **columns):
    parquet.write_table(pyarrow.table(columns), folder / "meta.parquet")
    return SubsetSpec(image_dir=folder, metadata_file=folder / "meta.parquet")


def index_of(spec, memory=None):
    return build_index([[spec]], emit=ignore, memory=memory)


@pytest.fixture
def never_opened(monkeypatch):
    def refuse(file):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(headers, "read", refuse)


SIZES = [(64, 48), (100, 80), (48, 64)]


@pytest.mark.parametrize("form", ["image_size", "width and height"])
def test_no_image_is_opened_for_buckets(tmp_path, never_opened, form):
    for number in range(3):
        # Not even pictures.
        (tmp_path / f"{number}.png").write_bytes(bytes(100 + number))
    if form == "image_size":
        columns = {form: [list(size) for size in SIZES]}
    else:
        columns = {"width": [w for w, _ in SIZES], "height": [h for _, h in SIZES]}
    spec = write(tmp_path, image_path=["0", "1.png", "2"], caption=["a", "b", "c"], **columns)
    index = index_of(spec)
    assert [item.size for item in index.items] == SIZES
    assert [item.caption for item in index.items] == ["a", "b", "c"]
    assert [item.file_bytes for item in index.items] == [100, 101, 102]
    status = os.stat(tmp_path / "2.png")
    assert index.items[2].mtime_ns == status.st_mtime_ns
    settings = BucketSettings(resolution=(64, 64), min_bucket_reso=64, bucket_reso_steps=16)
    plan, rejected = plan_buckets(index, (settings,))
    assert (len(plan.placements), len(rejected)) == (3, 0)


def test_images_without_a_size_are_measured_and_the_memory_does_not_learn_from_the_file(tmp_path):
    for number, size in enumerate(SIZES):
        os.utime(picture(tmp_path / f"{number}.png", size), ns=(10**18, 10**18))
    names = ["0", "1", "2"]
    wrong = [[1, 2], None, [48, 64]]
    spec = write(tmp_path, image_path=names, caption=names, image_size=wrong)
    plain = SubsetSpec(image_dir=tmp_path, class_tokens="cat")
    for _ in range(2):
        with image_memory(tmp_path / "memory", emit=ignore) as memory:
            index = index_of(spec, memory)
            assert [item.size for item in index.items] == [(1, 2), (100, 80), (48, 64)]
    with image_memory(tmp_path / "memory", emit=ignore) as memory:
        assert [item.size for item in index_of(plain, memory).items] == SIZES


def test_an_image_that_is_not_there_is_still_told(tmp_path):
    picture(tmp_path / "0.png", SIZES[0])
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    spec = write(tmp_path, image_path=["0", "1"], caption=["a", "b"], image_size=[[64, 48]] * 2)
    index = index_of(spec)
    assert [item.key for item in index.items] == ["0.png"]
    assert [one.path.name for one in index.rejected] == ["1.png"]


@pytest.mark.parametrize(
    "columns",
    [
        {"image_size": [[64]]},
        {"image_size": [[0, 64]]},
        {"image_size": ["64x48"]},
        {"width": [64], "height": [None]},
        {"width": [64.5], "height": [3.0]},
    ],
)
def test_what_is_no_size_is_told_with_its_row(tmp_path, columns):
    picture(tmp_path / "0.png")
    spec = write(tmp_path, image_path=["0"], caption=["a"], **columns)
    with pytest.raises(DataError, match=r"meta\.parquet, row 1.* is no size") as caught:
        index_of(spec)
    assert "width before height" in str(caught.value)


def test_a_wrong_size_is_named_when_the_pixels_are_read(tmp_path):
    picture(tmp_path / "0.png", (64, 48))
    spec = write(tmp_path, image_path=["0"], caption=["a"], image_size=[[48, 64]])
    settings = BucketSettings(resolution=(64, 64), min_bucket_reso=64)
    plan, _ = plan_buckets(index_of(spec), (settings,))
    job = PictureJob.of(plan.placements[0], PictureRules())
    address = Address(seed=1, epoch=1, dataset=0, subset=0, key="0.png", repeat=0)
    drawn = draw_picture(job, address)
    assert drawn.rgb_HWC is None
    assert drawn.problem == (
        "it is 64 x 48 px, and the metadata file says 48 x 64 px; mend image_size there"
    )
    assert not drawn.has_changed
