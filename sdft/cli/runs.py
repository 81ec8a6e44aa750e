"""`sdft runs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

app = new_app()


@app.command(name="runs", context_settings=CONTEXT)
def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that holds runs, at any of three levels.")
    ] = Path(),
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """List the runs in a folder with their state and last figures, the newest first."""
    from sdft.errors import UserError
    from sdft.views.run_list import COLUMNS, list_runs, row_words

    if not folder.is_dir():
        raise UserError(what="no such folder", where=str(folder))
    rows = list(list_runs(folder))
    text = table([COLUMNS, *map(row_words, rows)]) if rows else f"no runs in {folder}"
    result = {"runs": [row.as_json() for row in rows]}
    deliver(result, text, Output(json=json, json_out=json_out, quiet=quiet))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns of text; the last one is not filled up."""
    from sdft.views.text import visible

    cleaned = [[visible(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cleaned) for column in range(len(cleaned[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cleaned
    )
    return "\n".join(lines)
