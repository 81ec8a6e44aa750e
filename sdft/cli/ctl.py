"""`sdft ctl RUN pause|resume|save|sample|stop|set`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver
from sdft.errors import EnvironmentFault, UserError

app = new_app()

TIMEOUT_S = 120.0
"""Longer than the slowest step of a small card; saving a full state takes less."""


@app.command(name="ctl", context_settings=CONTEXT)
def command(
    run: Annotated[Path, typer.Argument(help="The run's folder, or one that has runs.")],
    name: Annotated[
        str, typer.Argument(metavar="COMMAND", help="pause, resume, save, sample, stop or set.")
    ],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="For set: learning_rate=1e-5.")
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="For pause: give the GPU's memory back meanwhile.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout_s", help="Seconds to wait for the answer.", min=0)
    ] = TIMEOUT_S,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Steer a run that is at work: pause, resume, save, sample, stop, set learning_rate=1e-5.

    It obeys after the step in progress and answers.
    """
    from sdft.control import send_command, wait_for_answer
    from sdft.views.find_runs import run_at

    folder = run_at(run)
    asked = send_command(folder, name, _arguments(values or [], release=release), sender="ctl")
    answer = wait_for_answer(folder, asked.id, timeout_s=timeout_s)
    if answer is None:
        raise EnvironmentFault(
            what=f"no answer in {timeout_s:g} s, or the run ended before it",
            where=str(folder.path),
            fix="it is obeyed when the step in progress ends; see: sdft watch",
        )
    if not answer.ok:
        raise UserError(what=answer.message, where=str(folder.path))
    result = {"run": folder.path, "command": name, "answer": answer.message, "problems": []}
    deliver(result, answer.message, Output(json=json, json_out=json_out, quiet=quiet))


def _arguments(values: list[str], *, release: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {"release": True} if release else {}
    for word in values:
        name, sign, value = word.partition("=")
        if not sign:
            raise UserError(what=f'"{word}" is not NAME=VALUE', fix="set learning_rate=1e-5")
        arguments[name] = value
    return arguments
