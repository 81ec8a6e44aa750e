"""`sdft bucket`: tables, pictures, fates for spreadsheets, buckets in metadata."""

import csv
import json

import pytest
from PIL import Image

from tests.cli.commands import sdft
from tests.unit.dataset.pictures import captioned, picture


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    captioned(folder, "猫.png", "b.png", "wide.png")
    picture(folder / "wide.png", (128, 64))
    file = tmp_path / "dataset.toml"
    file.write_text(
        "[general]\nenable_bucket = true\nresolution = 64\nmin_bucket_reso = 32\n"
        "max_bucket_reso = 128\nbucket_reso_steps = 8\n"
        "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'images'\n",
        "utf-8",
    )
    return file


def test_the_plan_is_told_in_figures_and_drawn(dataset, tmp_path, capsys):
    plot = tmp_path / "buckets.png"
    code, result, _ = sdft(capsys, "bucket", dataset, "--plot", plot, "--json")
    assert code == 0
    assert result["images"] == result["used"] == 3
    assert result["batches"] == 3
    assert result["waste"] == 0
    assert result["plot"] == str(plot)
    with Image.open(plot) as drawn:
        assert drawn.format == "PNG"
        assert len(drawn.getcolors(1 << 24)) > 4
    code, text, _ = sdft(capsys, "bucket", dataset)
    assert code == 0
    assert "#" in text
    assert "cut off" in text


def test_a_picture_under_another_ending_is_refused(dataset, tmp_path, capsys):
    code, _, err = sdft(capsys, "bucket", dataset, "--plot", tmp_path / "buckets.svg")
    assert code == 2
    assert "PNG" in err


def test_fates_open_in_a_spreadsheet_with_japanese_names(dataset, tmp_path, capsys):
    fates = tmp_path / "fates.csv"
    code, _, _ = sdft(capsys, "bucket", dataset, "--fates", fates)
    assert code == 0
    assert fates.read_bytes().startswith(b"\xef\xbb\xbf")
    with fates.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["fate"] for row in rows} == {"used"}
    assert any(row["path"].endswith("猫.png") for row in rows)


def test_buckets_are_written_into_metadata_and_taken_back(dataset, tmp_path, capsys):
    metadata = tmp_path / "meta.json"
    before = {"猫": {"caption": "a cat", "mine": 1}, "images/wide.png": {"tags": "x"}, "no": {}}
    metadata.write_text(json.dumps(before), "utf-8")
    text = dataset.read_text("utf-8").replace("image_dir", "metadata_file = 'meta.json'\nimage_dir")
    dataset.write_text(text, "utf-8")
    words = ("bucket", dataset, "--write_train_resolution", "--json")
    code, result, _ = sdft(capsys, *words)
    assert code == 0
    assert result["resolutions_written"] == 2
    after = json.loads(metadata.read_text("utf-8"))
    assert after["猫"] == {"caption": "a cat", "mine": 1, "train_resolution": [72, 56]}
    assert after["images/wide.png"]["train_resolution"] == [88, 40]
    assert after["no"] == {}
    assert sdft(capsys, *words)[1]["resolutions_written"] == 0
    assert sdft(capsys, "metadata", "undo", metadata)[0] == 0
    assert json.loads(metadata.read_text("utf-8")) == before


def test_without_a_metadata_file_there_is_nothing_to_write_into(dataset, capsys):
    code, _, err = sdft(capsys, "bucket", dataset, "--write_train_resolution")
    assert code == 2
    assert "no metadata file" in err
