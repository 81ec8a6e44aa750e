"""The fate of every image, and how full the buckets are."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sdft.dataset.buckets import plan_buckets
from sdft.dataset.records import BucketPlan, BucketSettings, DatasetIndex, Item, Rejected
from sdft.dataset.report import bucket_rows, fates, mean_crop, waste, write_fates

SETTINGS = [BucketSettings(resolution=(512, 512))]


def item(name: str, width: int, height: int, repeats: int = 1) -> Item:
    return Item(
        key=name,
        path=Path("画像") / name,
        size=(width, height),
        caption="",
        dataset=0,
        subset=0,
        num_repeats=repeats,
        file_bytes=1,
        mtime_ns=1,
    )


def planned(*items: Item) -> tuple[DatasetIndex, BucketPlan, list[Rejected]]:
    broken = Rejected(path=Path("画像/壊.png"), reason="the file is empty", dataset=0, subset=0)
    index = DatasetIndex(items=items, rejected=(broken,), notices=())
    return index, *plan_buckets(index, SETTINGS)


WIDE = item("広.png", 1600, 900, repeats=3)
SMALL = item("small.png", 256, 256)
EXACT = item("=1+1.png", 512, 512)
DOT = item("dot.png", 1, 1)


def test_every_image_has_one_row_with_the_agreed_names(tmp_path):
    index, plan, rejected = planned(WIDE, SMALL, DOT)
    count = write_fates(tmp_path / "fates.jsonl", index, plan, rejected)
    lines = (tmp_path / "fates.jsonl").read_text(encoding="ascii").splitlines()
    rows = [json.loads(line) for line in lines]
    assert count == len(rows) == 4
    wide, small, broken, dot = rows
    assert {key: wide[key] for key in wide if key not in ("path", "reason")} == {
        "fate": "used",
        "size": [1600, 900],
        "resized": [683, 384],
        "crop": [21, 0, 661, 384],
        "bucket": [640, 384],
        "repeats": 3,
        "scale": 0.4269,
        "dataset": 0,
        "subset": 0,
    }
    assert Path(wide["path"]) == WIDE.path
    assert wide["reason"] == "shrunk to 0.43, 6.3% cut off"
    assert small["reason"] == "enlarged 2.00 times"
    assert (broken["fate"], broken["reason"]) == ("rejected", "the file is empty")
    assert (broken["size"], broken["bucket"], broken["repeats"]) == (None, None, 0)
    assert (dot["fate"], dot["size"]) == ("rejected", [1, 1])


def test_an_image_that_keeps_all_its_pixels_has_no_reason():
    index, plan, rejected = planned(EXACT)
    assert next(fates(index, plan, rejected))["reason"] == ""


def test_an_image_rejected_after_planning_has_one_row_and_is_not_used():
    index, plan, _ = planned(WIDE, SMALL)
    late = Rejected(path=WIDE.path, reason="truncated", dataset=0, subset=0)
    rows = list(fates(index, plan, [*index.rejected, late, late]))
    assert [(Path(row["path"]).name, row["fate"]) for row in rows] == [
        ("small.png", "used"),
        ("壊.png", "rejected"),
        ("広.png", "rejected"),
    ]


def test_one_file_in_two_datasets_has_two_rows():
    index = DatasetIndex(items=(SMALL, replace(SMALL, dataset=1)), rejected=(), notices=())
    plan, _ = plan_buckets(index, SETTINGS * 2)
    assert [row["dataset"] for row in fates(index, plan, [])] == [0, 1]


def test_the_table_opens_in_a_spreadsheet_with_japanese_names(tmp_path):
    index, plan, rejected = planned(WIDE, replace(EXACT, path=Path(EXACT.key)), DOT)
    write_fates(tmp_path / "fates.csv", index, plan, rejected)
    content = (tmp_path / "fates.csv").read_bytes()
    assert content.startswith("\ufeffpath,fate,".encode())
    rows = list(csv.DictReader(content.decode("utf-8-sig").splitlines()))
    assert rows[0]["path"].endswith("広.png")
    assert (rows[0]["bucket_width"], rows[0]["bucket_height"]) == ("640", "384")
    assert rows[1]["path"] == "./=1+1.png"
    assert (rows[2]["width"], rows[2]["scale"], rows[3]["width"]) == ("", "", "1")


def test_a_name_that_is_no_text_can_be_written(tmp_path):
    index, plan, rejected = planned(replace(SMALL, path=Path("b\udcff.png")))
    for name in ("f.csv", "f.jsonl"):
        write_fates(tmp_path / name, index, plan, rejected)
        assert "udcff" in (tmp_path / name).read_text(encoding="utf-8-sig")


def test_buckets_are_counted_with_repeats_and_short_batches():
    _, plan, _ = planned(WIDE, SMALL, EXACT, replace(WIDE, num_repeats=2))
    rows = bucket_rows(plan, [4])
    wide, square = sorted(rows, key=lambda row: row.repeats, reverse=True)
    assert (wide.resolution, wide.images, wide.repeats, wide.batches) == ((640, 384), 2, 5, 2)
    assert (square.resolution, square.images, square.repeats, square.batches) == (
        (512, 512),
        2,
        2,
        1,
    )
    assert wide.mean_crop == pytest.approx(43 / 683)
    assert square.mean_crop == 0
    assert mean_crop(rows) == pytest.approx(43 / 683 / 2)
    assert waste(rows, [4]) == pytest.approx(1 - 7 / 12)


def test_an_empty_plan_has_no_rows_and_wastes_nothing():
    _, plan, _ = planned()
    assert bucket_rows(plan, [4]) == ()
    assert (mean_crop(()), waste((), [4])) == (0, 0)


def test_a_line_is_what_json_would_write(tmp_path):
    index, plan, rejected = planned(WIDE, SMALL, EXACT, DOT)
    write_fates(tmp_path / "fates.jsonl", index, plan, rejected, {WIDE.path})
    lines = (tmp_path / "fates.jsonl").read_text(encoding="ascii").splitlines()
    rows = list(fates(index, plan, rejected, {WIDE.path}))
    assert lines == [json.dumps(row) for row in rows]
    assert [row["fate"] for row in rows[:3]] == ["held out", "used", "used"]
