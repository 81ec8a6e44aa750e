"""`sdft report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

app = new_app()


@app.command(name="report", context_settings=CONTEXT)
def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A .run folder, its name without .run, or a folder of runs for the newest.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="The page; report.html in the run folder if not given."
        ),
    ] = None,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file that shows a run: curves, sample pictures, settings, images, machine.

    It holds all that it shows, asks nothing of any network, and may be sent to others: the home
    folder is written ~.
    """
    from sdft.files import write_text
    from sdft.jobs.environment import hide_home
    from sdft.views.find_runs import run_at
    from sdft.views.report.page import report_html
    from sdft.views.run_record import read_run

    folder = run_at(run)
    record = read_run(folder)
    page = out or folder.path / "report.html"
    write_text(page, report_html(record, clean=hide_home))
    result = {
        "report": str(page),
        "run": str(folder.path),
        "state": record.state.name,
        "steps": record.snapshot.summary.step,
    }
    deliver(result, str(page), Output(json=json, json_out=json_out, quiet=quiet))
