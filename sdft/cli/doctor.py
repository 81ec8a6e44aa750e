"""`sdft doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver, spoken

if TYPE_CHECKING:
    from sdft.jobs.diagnosis import DoctorResult

app = new_app()


@app.command(name="doctor", context_settings=CONTEXT)
def command(
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="RUN",
            help="Pack what a bug report about this run needs, secrets removed, into one .zip.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The .zip; beside the run folder if not given."),
    ] = None,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Say what this machine has, what will be used, what is missing and how to get it.

    Takes some seconds. The report names no user, host or folder, so it can be shown to others.
    """
    from sdft.jobs.doctor import run_doctor
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    if bundle is not None:
        _pack(bundle, out, Output(json=json, json_out=json_out, quiet=quiet))
        return
    with console_view(quiet=quiet) as console:
        result = run_doctor(Path.cwd(), emit=Fanout([console]))
    deliver(result.as_json(), _words(result), Output(json=json, json_out=json_out, quiet=quiet))


def _pack(path: Path, out: Path | None, output: Output) -> None:
    from sdft.jobs.bundle import run_bundle
    from sdft.units import format_bytes
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout
    from sdft.views.find_runs import run_at

    run = run_at(path)
    target = out or run.path.with_name(f"{run.path.name}-bundle.zip")
    with console_view(quiet=output.quiet) as console:
        result = run_bundle(run, target, emit=Fanout([console]))
    text = (
        f"{result.bundle} ({format_bytes(result.size_bytes)}): {', '.join(result.files)}\n"
        "look through it before you send it"
    )
    deliver(result.as_json(), text, output)


def _words(result: DoctorResult) -> str:
    from sdft.language import cells, padded

    words = spoken(sys.stdout)
    state_width = max(cells(words(f"doctor.{finding.state}")) for finding in result.findings) + 2
    width = max(len(finding.name) for finding in result.findings)
    lines = []
    for finding in result.findings:
        note = words.note(finding.key, finding.values, finding.note)
        note = f" ({note})" if note else ""
        state = padded(words(f"doctor.{finding.state}"), state_width)
        lines.append(f"{state}{finding.name:{width}}  {finding.value}{note}")
    lines.append(words("doctor.device", device=result.device))
    if not result.problems:
        lines.append(words("doctor.no_problems"))
    lines += [words("doctor.a_problem", problem=words.problem(one)) for one in result.problems]
    return "\n".join(lines)
