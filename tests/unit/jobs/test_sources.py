from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.folders import folder_of
from sdft.config.load import load_config
from sdft.dataset.records import BucketSettings, Rejected, SubsetSpec, WordRules
from sdft.errors import DataError
from sdft.events import ItemRejected, Notice
from sdft.jobs.bucket import run_bucket
from sdft.jobs.sources import (
    bucket_settings,
    plan_dataset,
    require_enough,
    subset_specs,
    word_rules,
)
from tests.toy_pictures import write_pictures

UNLIKE_DEFAULT = {
    "image_dir": Path("x"),
    "metadata_file": Path("m.json"),
    "caption_extension": ".cap",
    "class_tokens": "cat",
    "num_repeats": 7,
    "is_reg": True,
    "alpha_mask": True,
    "flip_aug": True,
    "color_aug": True,
    "random_crop": True,
    "face_crop_aug_range": (1.0, 2.0),
    "recursive": True,
    "caption_separator": ";",
    "shuffle_caption": True,
    "keep_tokens": 3,
    "keep_tokens_separator": "|||",
    "secondary_separator": ";;",
    "enable_wildcard": True,
    "caption_prefix": "p",
    "caption_suffix": "s",
    "caption_dropout_rate": 0.1,
    "caption_dropout_every_n_epochs": 2,
    "caption_tag_dropout_rate": 0.2,
    "token_warmup_min": 4,
    "token_warmup_step": 0.5,
}


def test_no_setting_of_a_subset_is_lost_on_the_way_to_the_records():
    dataset = DatasetSettings(subsets=(SubsetSettings(**UNLIKE_DEFAULT),))
    ((spec,),) = subset_specs([dataset])
    for field in fields(SubsetSpec):
        if field.name != "words":
            assert getattr(spec, field.name) == UNLIKE_DEFAULT[field.name]
    for field in fields(WordRules):
        assert getattr(spec.words, field.name) == UNLIKE_DEFAULT[field.name]
    assert word_rules([dataset]) == {(0, 0): spec.words}


def test_no_bucket_setting_is_lost_on_the_way_to_the_records():
    values = {
        "resolution": (640, 512),
        "enable_bucket": True,
        "min_bucket_reso": 128,
        "max_bucket_reso": 2048,
        "bucket_reso_steps": 32,
        "bucket_no_upscale": True,
    }
    assert bucket_settings([DatasetSettings(**values)]) == (BucketSettings(**values),)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A dataset file over nine pictures."""
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "data" / "images", 9, side_px=64)
    text = """
[general]
enable_bucket = true
caption_extension = ".txt"
[[datasets]]
resolution = 64
min_bucket_reso = 32
bucket_reso_steps = 32
batch_size = 2
[[datasets.subsets]]
image_dir = "images"
num_repeats = 3
"""
    (tmp_path / "data" / "dataset.toml").write_text(text)
    return load_config(Path("data/dataset.toml"), {}, tmp_path)


def test_the_plan_of_a_config_places_every_image(config):
    events: list[object] = []
    planned = plan_dataset(config, emit=events.append)
    assert len(planned.plan.placements) == 9
    assert planned.rejected == ()
    assert planned.batch_sizes == (2,)
    assert not [event for event in events if isinstance(event, Notice | ItemRejected)]


def test_an_image_without_a_place_is_said_once_and_has_a_fate(config, tmp_path):
    write_pictures(tmp_path / "data" / "images", 30, side_px=64)
    (tmp_path / "data" / "images" / "bad.png").write_text("broken")
    (tmp_path / "data" / "images" / "bad.txt").write_text("words")
    events: list[object] = []
    result = run_bucket(config, fates=None, emit=events.append)
    assert (result.images, result.used, result.rejected) == (31, 30, 1)
    (said,) = [event for event in events if isinstance(event, ItemRejected)]
    assert said.path.endswith("bad.png")
    assert result.fates == tmp_path / "data" / "fates.jsonl"
    assert len(result.fates.read_text(encoding="ascii").splitlines()) == 31


def test_batches_are_counted_with_repeats_bucket_by_bucket(config):
    result = run_bucket(config, fates=None, emit=lambda event: None)
    assert sum(row.images for row in result.rows) == 9
    assert sum(row.repeats for row in result.rows) == 27
    assert result.batches == sum(-(-row.repeats // 2) for row in result.rows)
    assert 0 <= result.waste < 1


def test_the_folder_of_a_config_is_that_of_its_dataset_file(config, tmp_path, monkeypatch):
    assert folder_of(config) == tmp_path / "data"
    (tmp_path / "config.toml").write_text('dataset_config = "data/dataset.toml"\n')
    assert folder_of(load_config(Path("config.toml"), {}, tmp_path)) == tmp_path / "data"


def rejected(count: int) -> list[Rejected]:
    return [Rejected(path=Path(f"{n}.png"), reason="r", dataset=0, subset=0) for n in range(count)]


def test_a_share_of_unusable_images_up_to_the_limit_passes():
    require_enough(num_images=10, rejected=rejected(1), max_share=0.1)
    require_enough(num_images=10, rejected=[], max_share=0.0)
    with pytest.raises(DataError, match="2 of 10 images cannot be used"):
        require_enough(num_images=10, rejected=rejected(2), max_share=0.1)


def test_no_usable_image_at_all_never_passes():
    with pytest.raises(DataError, match="3 of 3 images"):
        require_enough(num_images=3, rejected=rejected(3), max_share=1.0)


def test_only_the_first_of_many_unusable_images_are_named():
    with pytest.raises(DataError) as caught:
        require_enough(num_images=50, rejected=rejected(50), max_share=0.5)
    assert len(caught.value.problems) == 11
