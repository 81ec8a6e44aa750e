"""`sdft demo`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

app = new_app()


@app.command(name="demo", context_settings=CONTEXT)
def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where everything goes; new or empty.")
    ] = Path("sdft-demo"),
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Make model, images and files, run no command.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Go the whole way once, on a tiny model and pictures that are made for it.

    Makes a data set, plans its buckets, encodes it, trains on it and draws a picture, by the
    commands that you would use yourself. Takes a few minutes without a GPU; needs no network.
    """
    from sdft.jobs.demo import run_demo
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    def run_line(words: Sequence[str]) -> int:
        """Run one command line as if it had been typed; its result goes where progress goes."""
        from sdft.cli.app import run

        with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
            if not quiet:
                print(f"\n$ {shown(words)}", flush=True)
            return run([*words[1:], *(["--quiet"] if quiet else [])])

    with console_view(quiet=quiet) as console:
        result = run_demo(
            folder,
            prepare_only=prepare,
            device=device,
            run_line=run_line,
            emit=Fanout([console]),
        )
    deliver(result.as_json(), result.words(), Output(json=json, json_out=json_out, quiet=quiet))


def shown(words: Sequence[str]) -> str:
    """Return the words as a line that can be copied."""
    from sdft.cli.shown_line import shown_line

    return shown_line(words, environment={})
