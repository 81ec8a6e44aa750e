"""Curves and fates from and to files."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image

from sdft.views.curve_files import HEIGHT_PX, WIDTH_PX, Line, export_curves
from sdft.views.fates import read_fates
from sdft.views.series import Point
from tests.tui.recorder import Recorder


def points(values: list[float]) -> list[Point]:
    return [Point(step, value, value, value, 1) for step, value in enumerate(values, 1)]


def test_the_table_has_every_point_and_the_picture_the_curves_colour(tmp_path: Path) -> None:
    color = (0, 114, 178)
    curves = {"loss": [Line(name="a, b", points=points([3.0, 2.0, 1.0]), color=color)]}
    table, picture = export_curves(tmp_path, "run", curves, log_scale=False)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["curve"], row["step"], row["mean"]) for row in rows] == [
        ("a, b", "1", "3"),
        ("a, b", "2", "2"),
        ("a, b", "3", "1"),
    ]
    with Image.open(picture) as image:
        assert image.size == (WIDTH_PX, HEIGHT_PX)
        falls = [
            min(y for y in range(60, 520) if image.getpixel((x, y)) == color)
            for x in (100, 600, 1100)
        ]
    assert falls == sorted(falls)


def test_flat_empty_and_negative_curves_are_drawn_too(tmp_path: Path) -> None:
    for number, values in enumerate(([], [5.0], [0.0, 0.0], [-1.0, 0.0, 1.0])):
        for log_scale in (False, True):
            lines = {"x": [Line(name="x", points=points(values))]}
            written = export_curves(tmp_path / str(number), "r", lines, log_scale=log_scale)
            assert all(path.stat().st_size for path in written)


def test_fates_are_counted_and_strange_lines_passed_over(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.run")
    recorder.fates(num_used=30)
    with recorder.run.fates_file.open("ab") as file:
        file.write(b'{"fate": "used", "bucket": ["a"]}\n[1]\nnull\n{"fate": "rejected"}\n')
        file.write(b"\xff\xfe{\n" + b"[" * 70_000)
    fates = read_fates(recorder.run.fates_file)
    assert fates is not None
    assert (fates.num_used, fates.num_rejected) == (31, 3)
    assert fates.buckets == {(512, 448): 10, (512, 512): 10, (512, 576): 10}
    assert fates.reasons["not a picture"] == 1
    assert read_fates(tmp_path / "none.jsonl") is None
