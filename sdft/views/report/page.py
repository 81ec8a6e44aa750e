"""Writes the page of a report.

In: a RunRecord. Out: HTML in one piece: style, script, curves and pictures stand inside, and the
page forbids itself every request. Text from files is text, never markup.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from sdft.views.report.charts import charts_of
from sdft.views.report.parts import (
    Row,
    environment_rows,
    fate_rows,
    head_rows,
    notice_rows,
    setting_rows,
)
from sdft.views.report.pictures import PictureTable, picture_table
from sdft.views.run_record import RunRecord
from sdft.views.text import visible

Clean = Callable[[str], str]
"""Takes what names the user out of a text."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def report_html(record: RunRecord, *, clean: Clean) -> str:
    """Return the page that shows a run."""
    charts = charts_of(record.snapshot)
    pictures = picture_table(record)
    changed, others = setting_rows(record)
    sections = [
        _section("Curves", '<div id="charts"></div>' if charts else _nothing("no step was done")),
        _section("Sample pictures", _pictures(pictures, clean)),
        _section("Notices", _table(notice_rows(record), clean)),
        _section("What became of the images", _fates(record, clean)),
        _section("Settings", _settings(changed, others, clean)),
        _section("Environment", _table(environment_rows(record), clean)),
    ]
    name = _text(record.name, clean)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # An icon of its own: a browser would else ask for one.
            f'<link rel="icon" href="data:,"><title>{name}</title>',
            f"<style>{_beside('page.css')}</style></head><body>",
            f"<header><h1>{name}</h1>{_table(head_rows(record), clean)}</header>",
            *sections,
            f'<script type="application/json" id="data">{_json(charts)}</script>',
            f"<script>{_beside('page.js')}</script>",
            "</body></html>\n",
        ]
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _nothing(words: str) -> str:
    return f'<p class="none">{escape(words)}</p>'


def _text(value: str, clean: Clean) -> str:
    return escape(visible(clean(value)))


def _table(rows: Sequence[Row], clean: Clean) -> str:
    if not rows:
        return _nothing("none")
    lines = [
        f'<tr class="{row.kind}"><th>{_text(row.name, clean)}</th>'
        f"<td>{_text(row.value, clean)}</td></tr>"
        for row in rows
    ]
    return f"<table>{''.join(lines)}</table>"


def _settings(changed: Sequence[Row], others: Sequence[Row], clean: Clean) -> str:
    if not changed and not others:
        return _nothing("the run folder holds no settings")
    if not others:
        return _table(changed, clean)
    return (
        f"{_table(changed, clean)}<details><summary>{len(others)} settings as they are by default"
        f"</summary>{_table(others, clean)}</details>"
    )


def _fates(record: RunRecord, clean: Clean) -> str:
    if record.fates is None:
        return _nothing("the run folder does not say")
    rejected = [Row(name=path, value=reason) for path, reason in record.fates.rejected]
    listed = (
        f"<details><summary>images that were not used</summary>{_table(rejected, clean)}</details>"
        if rejected
        else ""
    )
    return _table(fate_rows(record.fates), clean) + listed


def _pictures(table: PictureTable, clean: Clean) -> str:
    if not table.rows:
        return _nothing("none were drawn")
    head = "".join(f"<th>step {step}</th>" for step in table.steps)
    lines = []
    for row in table.rows:
        prompt = _text(row.prompt, clean)
        cells = "".join(
            f'<td><img alt="{prompt}, step {step}" src="{cell}" loading="eager"></td>'
            if cell
            else "<td></td>"
            for step, cell in zip(table.steps, row.cells, strict=True)
        )
        lines.append(
            f'<tr><th class="prompt">{prompt}<small>seed {row.seed}</small></th>{cells}</tr>'
        )
    more = f"<p>{table.num_left_out} more pictures are in the run folder.</p>"
    return (
        f'<div class="scroll"><table class="pictures"><tr><th></th>{head}</tr>{"".join(lines)}'
        f"</table></div>{more if table.num_left_out else ''}"
    )


def _json(value: object) -> str:
    # Inside a script element only the end of one would be understood.
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
