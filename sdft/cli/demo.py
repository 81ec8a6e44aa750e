"""`sdft demo`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

if TYPE_CHECKING:
    from sdft.views.history import Snapshot

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
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of images and training.")] = 1,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Go the whole way once: teach a tiny model a shape that it has never seen.

    Makes 20 images of it, plans their buckets, encodes them and trains, by the commands that you
    would use yourself; shows pictures, scores and curves from before and after. Takes a few
    minutes without a GPU; needs no network.
    """
    from sdft.jobs.demo import run_demo
    from sdft.views.console import console_view
    from sdft.views.demo_text import demo_text, read_to_the_end, write_curves
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
            seed=seed,
            run_line=run_line,
            emit=Fanout([console]),
        )
    seen = None
    if result.run is not None:
        seen = read_to_the_end(result.run)
        write_curves(result.run, seen)
        if not (quiet or json):
            show_pictures(seen, result.run.samples)
    text = demo_text(result.as_json(), seen, result.next_steps())
    deliver(result.as_json(), text, Output(json=json, json_out=json_out, quiet=quiet))


def show_pictures(seen: Snapshot, folder: Path) -> None:
    """Draw the first and the last samples, where the terminal has the colours and characters."""
    from rich.console import Console

    from sdft.views.demo_text import CELLS, first_and_last, picture_row

    console = Console()
    has_blocks = not console.legacy_windows and "utf" in console.encoding.lower()
    if not (console.is_terminal and console.color_system and has_blocks):
        return
    for step, samples in first_and_last(seen.samples):
        shown = samples[: max(1, console.width // (CELLS + 1))]
        prompts = ", ".join(one.prompt for one in shown)
        console.print(f"\nstep {step}: {prompts}", markup=False, highlight=False)
        row = picture_row([folder / Path(one.path).name for one in shown])
        console.print(row, soft_wrap=True, end="")


def shown(words: Sequence[str]) -> str:
    """Return the words as a line that can be copied."""
    from sdft.cli.shown_line import shown_line

    return shown_line(words, environment={})
