"""What the demo shows in words and in characters."""

import io
from pathlib import Path

from PIL import Image
from rich.console import Console

from sdft.events import SampleSaved
from sdft.views.demo_text import CELLS, demo_text, first_and_last, picture_row
from sdft.views.history import History
from sdft.views.text_chart import chart


def saved(step, number):
    return SampleSaved(step=step, path=f"{step}_{number}.png", prompt="a red ring", seed=number)


def test_a_chart_has_a_mark_for_each_value_at_its_height():
    assert chart([0.0, 2.0, 4.0, 1.0], top=4.0, end="step 4") == [
        "       4 |  *",
        "       3 |",
        "       2 | *",
        "       1 |   *",
        "       0 |*",
        "         +---- step 4",
    ]


def test_pictures_stand_side_by_side_in_their_colours(tmp_path):
    paths = []
    for number, colour in enumerate(((220, 30, 30), (40, 70, 220))):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (64, 64), colour).save(paths[-1])
    row = picture_row(paths)
    lines = row.plain.splitlines()
    assert lines == [("▀" * CELLS + " ") * 2] * (CELLS // 2)
    styles = {str(span.style) for span in row.spans}
    assert styles == {"#dc1e1e on #dc1e1e", "#2846dc on #2846dc"}
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    console.print(row, soft_wrap=True, end="")
    assert "\x1b[38;2;220;30;30;48;2;220;30;30m▀" in console.file.getvalue()


def test_only_the_first_and_the_last_pictures_are_shown():
    samples = [saved(step, number) for step in (0, 20, 40) for number in (0, 1)]
    assert first_and_last(samples) == [(0, samples[:2]), (40, samples[4:])]
    assert first_and_last(samples[:2]) == [(0, samples[:2])]
    assert first_and_last([]) == []


def test_the_text_tells_scores_paths_and_what_is_next():
    shares = {"new_shape": 0.0, "old_shapes": 0.96, "colours": 1.0}
    result = {
        "folder": "demo",
        "checkpoint": "demo/output/demo.safetensors",
        "run": "demo/output/demo.run",
        "sheet": "sheet.png",
        "before": shares,
        "after": shares | {"new_shape": 0.58},
    }
    text = demo_text(result, History().snapshot(1.0), "go on")
    assert "the new shape is drawn      0%    58%" in text
    assert "demo/output/demo.run" in text
    assert text.endswith("go on")
    prepared = demo_text(result, None, "go on")
    assert f"sdft train {Path('demo') / 'config.toml'}" in prepared
    assert "58%" not in prepared
