"""What the demo left, for a person: scores, curves, pictures, and where everything is.

In: what `sdft demo --json` prints, and the run's folder. Out: lines of text, two charts as files,
and rows of small pictures for a terminal.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft.events import SampleSaved
from sdft.rundir import RunDir
from sdft.views.curve_files import Line, export_curves
from sdft.views.history import RunReader, Snapshot
from sdft.views.series import Point
from sdft.views.text_chart import chart

if TYPE_CHECKING:
    from rich.text import Text

CURVES = {"loss": "loss of the steps", "validation": "loss of images that are never trained on"}
COLUMNS = 60
CELLS = 16
"""Columns of a terminal for one picture; a character is two pixels, one above the other."""


def read_to_the_end(run: RunDir) -> Snapshot:
    """Return all that the run's events say."""
    reader = RunReader(run.events_file)
    while reader.advance():
        pass
    return reader.snapshot()


def demo_text(result: Mapping[str, Any], seen: Snapshot | None, next_steps: str) -> str:
    """Return scores, curves and paths; of files that were only prepared, their paths."""
    folder = Path(result["folder"])
    lines = [
        "",
        f"model        {folder / 'model.safetensors'} (tiny; draws coloured shapes)",
        f"images       {folder / 'images'}",
        f"settings     {folder / 'config.toml'}, {folder / 'dataset.toml'}",
    ]
    if seen is None:
        lines.append(f"next         sdft train {folder / 'config.toml'}")
        return "\n".join([*lines, "", next_steps])
    lines += [
        f"checkpoint   {result['checkpoint']}",
        f"run folder   {result['run']}",
        f"pictures     {result['sheet']}",
        "",
        *_scores(result["before"], result["after"]),
    ]
    for name, title in CURVES.items():
        points = seen.curves[name].points()
        if points:
            lines += ["", title, *_chart(points)]
    return "\n".join([*lines, "", next_steps])


def _scores(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    names = {
        "new_shape": "the new shape is drawn",
        "old_shapes": "a known shape is drawn",
        "colours": "the colour is right",
    }
    width = max(map(len, names.values()))
    rows = [f"{'':{width}}  before  after"]
    for key, name in names.items():
        rows.append(f"{name:{width}}  {before[key]:6.0%}  {after[key]:5.0%}")
    return rows


def _chart(points: Sequence[Point]) -> list[str]:
    columns = min(COLUMNS, len(points))
    bounds = [round(column * len(points) / columns) for column in range(columns + 1)]
    means = [
        sum(point.mean for point in points[start:end]) / (end - start)
        for start, end in itertools.pairwise(bounds)
    ]
    end = f"step {points[-1].step}"
    return chart(means, bottom=min(0.0, *means), top=max(means), end=end)


def write_curves(run: RunDir, seen: Snapshot) -> list[Path]:
    """Write the two curves as a table and as pictures into the run's folder."""
    charts = {
        name: [Line(name=name, points=seen.curves[name].points())]
        for name in CURVES
        if len(seen.curves[name])
    }
    return export_curves(run.path / "curves", run.path.stem, charts, log_scale=False)


def first_and_last(samples: Sequence[SampleSaved]) -> list[tuple[int, list[SampleSaved]]]:
    """Return the samples of the first step that has some, and of the last."""
    steps = sorted({one.step for one in samples})
    ends = dict.fromkeys((steps[0], steps[-1])) if steps else {}
    return [(step, [one for one in samples if one.step == step]) for step in ends]


def picture_row(paths: Sequence[Path]) -> Text:
    """Return pictures beside one another, in characters of two colours each.

    Raises: OSError where a file is no picture.
    """
    from PIL import Image
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    row = Image.new("RGB", (len(paths) * (CELLS + 1), CELLS))
    for number, path in enumerate(paths):
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((CELLS, CELLS), Image.Resampling.BOX)
        row.paste(small, (number * (CELLS + 1), 0))
    pixels: Any = row.load()
    text = Text(no_wrap=True)
    for y in range(0, CELLS, 2):
        for x in range(row.width):
            if x % (CELLS + 1) == CELLS:
                text.append(" ")
                continue
            upper, lower = (Color.from_rgb(*pixels[x, y + below]) for below in (0, 1))
            text.append("\N{UPPER HALF BLOCK}", Style(color=upper, bgcolor=lower))
        text.append("\n")
    return text
