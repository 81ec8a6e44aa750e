"""`sdft sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

if TYPE_CHECKING:
    from sdft.jobs.sample import SampleResult

app = new_app()


@app.command(name="sample", context_settings=CONTEXT)
def command(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A .safetensors or .ckpt file, or a diffusers folder."
        ),
    ],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="What to draw; may be given again.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="A .txt, .json or .toml of prompts, as for sample_prompts of a run.",
        ),
    ] = None,
    negative_prompt: Annotated[
        str, typer.Option("--negative-prompt", help="What not to draw.")
    ] = "",
    output_dir: Annotated[
        Path, typer.Option("--output-dir", metavar="DIR", help="Folder of the pictures.")
    ] = Path("samples"),
    width: Annotated[
        int | None,
        typer.Option("--width", help="Pixels, a multiple of 8; the model's own size if not set."),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option("--height", help="Pixels, a multiple of 8; the model's own size if not set."),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=1000, help="Steps of the sampler.")
    ] = 30,
    scale: Annotated[
        float, typer.Option("--scale", min=0.0, help="How strictly the prompt is followed.")
    ] = 7.5,
    sampler: Annotated[str, typer.Option("--sampler", help="ddim, euler_a, ...")] = "ddim",
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of the first picture; the next is 1 more.")
    ] = None,
    num_images: Annotated[
        int, typer.Option("--num-images", min=1, help="Pictures of each prompt.")
    ] = 1,
    clip_skip: Annotated[
        int | None, typer.Option("--clip-skip", min=1, max=12, help="As in training.")
    ] = None,
    max_token_length: Annotated[
        int, typer.Option("--max-token-length", help="75, 150 or 225, as in training.")
    ] = 75,
    v2: Annotated[bool, typer.Option("--v2", help="A 2.x model; found out if not set.")] = False,
    v_parameterization: Annotated[
        bool, typer.Option("--v-parameterization", help="It predicts v; found out if not set.")
    ] = False,
    vae: Annotated[Path | None, typer.Option("--vae", help="Another VAE.")] = None,
    hypernetwork: Annotated[
        list[str] | None,
        typer.Option(
            "--hypernetwork",
            metavar="FILE[:STRENGTH]",
            help="A .pt or .safetensors, such as x.pt:0.8; may be given again.",
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Draw pictures with a checkpoint."""
    from sdft.cli.sample_words import hypernetworks
    from sdft.jobs.sample import run_sample
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    with console_view(quiet=quiet) as console:
        result = run_sample(
            model,
            prompts=tuple(prompt or ()),
            prompts_file=prompts,
            negative_prompt=negative_prompt,
            output_dir=output_dir,
            width=width,
            height=height,
            num_steps=steps,
            guidance_scale=scale,
            sampler=sampler,
            seed=seed,
            num_images=num_images,
            clip_skip=clip_skip,
            max_token_length=max_token_length,
            v2=v2 or None,
            v_parameterization=v_parameterization or None,
            vae=vae,
            hypernetworks=hypernetworks(hypernetwork or ()),
            device=device,
            emit=Fanout([console]),
        )
    deliver(result.as_json(), _words(result), Output(json=json, json_out=json_out, quiet=quiet))


def _words(result: SampleResult) -> str:
    return "\n".join(str(path) for path in result.images)
