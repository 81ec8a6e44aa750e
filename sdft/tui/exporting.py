"""Writes what the charts show into files of the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdft.language import Words
from sdft.rundir import RunDir
from sdft.tui.following import Seen
from sdft.tui.viewing import Colors, Viewing, chart_names, chart_plan
from sdft.views.curve_files import Line, export_curves


def write_curves(
    run: RunDir, runs: Sequence[Seen], viewing: Viewing, *, words: Words, colors: Colors
) -> list[Path]:
    """Write `curves/<run>.csv` and a picture of each chart that the filter lets through.

    Raises: EnvironmentFault where the folder cannot be written.
    """
    charts: dict[str, list[Line]] = {}
    for name in chart_names(viewing, words):
        plan = chart_plan(name, runs, viewing, words=words, colors=colors, ascii_only=False)
        if plan.lines:
            charts[name] = [
                Line(name=line.name, points=line.points, color=line.color, is_thin=line.is_pale)
                for line in plan.lines
            ]
    return export_curves(run.path / "curves", run.path.stem, charts, log_scale=viewing.log_scale)
