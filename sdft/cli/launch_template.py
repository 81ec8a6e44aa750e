"""`sdft launch-template`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

app = new_app()


@app.command(name="launch-template", context_settings=CONTEXT)
def command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="slurm, k8s or accelerate.")],
    config: Annotated[
        str, typer.Option("--config", metavar="FILE", help="The settings, as the machines see it.")
    ] = "config.toml",
    nodes: Annotated[int, typer.Option("--nodes", help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs in each machine.")] = 1,
    max_restarts: Annotated[
        int,
        typer.Option(
            "--max_restarts", "--max-restarts", help="How often it goes on after a process died."
        ),
    ] = 3,
    name: Annotated[str, typer.Option("--name", help="Of the job.")] = "sdft",
    time: Annotated[str, typer.Option("--time", help="slurm: the time limit.")] = "24:00:00",
    image: Annotated[
        str, typer.Option("--image", help="k8s: the container's image.")
    ] = "sdft:latest",
    claim: Annotated[
        str, typer.Option("--claim", help="k8s: the volume claim with settings and images.")
    ] = "sdft",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it to a file.")
    ] = None,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Print a file that starts a training on several machines, ready to be handed in."""
    from sdft.files import write_text
    from sdft.jobs.launching import Launch, launch_template

    launch = Launch(
        config=config,
        nodes=nodes,
        gpus=gpus,
        max_restarts=max_restarts,
        name=name,
        time_limit=time,
        image=image,
        claim=claim,
    )
    text = launch_template(kind, launch)
    output = Output(json=json, json_out=json_out, quiet=quiet)
    if out is not None:
        write_text(out, text)
        deliver({"kind": kind, "text": text, "file": out}, str(out), output)
    else:
        deliver({"kind": kind, "text": text}, text.rstrip("\n"), output)
