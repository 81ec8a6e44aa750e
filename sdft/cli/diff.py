"""`sdft diff`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver
from sdft.cli.runs import table

if TYPE_CHECKING:
    from sdft.views.run_diff import Difference, RunDiff

app = new_app()


@app.command(name="diff", context_settings=CONTEXT)
def command(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A .run folder.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another one.")],
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Show what differs between two runs: settings, images, environment, curves."""
    from sdft.views.find_runs import run_at
    from sdft.views.run_diff import diff_runs
    from sdft.views.run_record import read_run

    records = [read_run(run_at(path)) for path in (first, second)]
    result = diff_runs(records[0], records[1])
    names = (records[0].name, records[1].name)
    text = words(result, names)
    deliver(result.as_json(), text, Output(json=json, json_out=json_out, quiet=quiet))


def words(result: RunDiff, names: tuple[str, str]) -> str:
    """Return a comparison as text."""
    parts = [
        _part("settings", result.settings, names),
        _part("images", result.data, names),
        _part("environment", result.environment, names),
        _part("figures", result.curves, names),
    ]
    hidden = result.num_images_different - len(result.data)
    if hidden > 0:
        parts.insert(2, f"and {hidden} more images")
    apart = result.first_loss_apart
    parts.append(
        "the losses are the very same, as far as both go"
        if apart is None
        else f"the losses differ from step {apart} on"
    )
    return "\n\n".join(part for part in parts if part)


def _part(title: str, differences: tuple[Difference, ...], names: tuple[str, str]) -> str:
    if not differences:
        return f"{title}: no difference"
    rows = [(one.name, one.first or "-", one.second or "-") for one in differences]
    return table([(title, *names), *rows])
