"""`sdft import`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

if TYPE_CHECKING:
    from sdft.jobs.importing.foreign import Foreign

app = new_app()


@app.command(name="import", context_settings=CONTEXT)
def command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .bat, .ps1 or .sh with an sd-scripts line, or a .json of kohya_ss, OneTrainer"
            " or SimpleTuner.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the files written.")] = Path(),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace config.toml and dataset.toml.")
    ] = False,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Write config.toml and dataset.toml from another program's settings.

    Says what was kept, what was written otherwise, and what is left out and why.
    """
    from sdft.jobs.import_settings import read_source, run_import

    source = read_source(file)
    found = source.foreign
    words = [*source.words, *shlex.split(found.extra_line)]
    settings = {**found.settings, **_settings_of(words, found)}
    result = run_import(found, settings, out_dir=out, origin=file.name, overwrite=overwrite)
    output = Output(json=json, json_out=json_out, quiet=quiet)
    deliver(result.as_json(), result.words(), output)


def _settings_of(words: Sequence[str], found: Foreign) -> dict[str, object]:
    """Return the settings of a command line; its mistakes are noted."""
    from sdft.cli.argv import read_line
    from sdft.cli.settings_line import command_options, hidden_options
    from sdft.cli.train import PAGE

    options = command_options(PAGE)
    line = read_line(words, (*options, *hidden_options(options)))
    for problem in line.problems:
        found.drop(problem.where, problem.what + (f"; {problem.fix}" if problem.fix else ""))
    own = {option.name for option in PAGE.own}
    settings = {name: value for name, value in line.values.items() if name not in own}
    if line.config is not None:
        settings.setdefault("config_file", str(line.config))
    return settings
