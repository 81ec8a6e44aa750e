"""`sdft verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

app = new_app()


@app.command(name="verify", context_settings=CONTEXT)
def command(
    path: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN|CACHE",
            help="A model or hypernetwork file, a diffusers folder, a run's or a cache's folder, or"
            " the URL of a cache.",
        ),
    ],
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Tell what a model, a hypernetwork, a run or a cache is, and whether it is whole."""
    from sdft.errors import DataError
    from sdft.jobs.verify import run_verify
    from sdft.urls import as_path
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    with console_view(quiet=quiet) as console:
        result = run_verify(as_path(path), emit=Fanout([console]))
    deliver(result.as_json(), result.words(), Output(json=json, json_out=json_out, quiet=quiet))
    if result.problems:
        raise typer.Exit(DataError.exit_code)
