"""`sdft caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.labelling import (
    BatchSize,
    Device,
    ForceDownload,
    Images,
    ModelDir,
    NumProcesses,
    Overwrite,
    Recursive,
    Workers,
    result_words,
)
from sdft.cli.metadata import command_line
from sdft.cli.output import Output, deliver

app = new_app()


@app.command(name="caption", context_settings=CONTEXT)
def command(
    images: Images,
    model: Annotated[
        str | None,
        typer.Option("--model", "--model_id", help="A transformers folder or a hub ID."),
    ] = None,
    model_dir: ModelDir = Path("caption_model"),
    captioner: Annotated[
        str, typer.Option("--captioner", help="auto, blip, git, or general for all others.")
    ] = "auto",
    force_download: ForceDownload = False,
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help="auto (fp16 on a GPU), fp32, fp16 or bf16.")
    ] = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    num_processes: NumProcesses = 1,
    caption_extension: Annotated[
        str,
        typer.Option("--caption_extension", "--caption_extention", help="Of the files written."),
    ] = ".caption",
    output_path: Annotated[
        Path | None,
        typer.Option("--output_path", help="One .json or .jsonl instead of text files."),
    ] = None,
    recursive: Recursive = False,
    overwrite: Overwrite = False,
    beam_search: Annotated[
        bool, typer.Option("--beam_search", help="Beam search instead of nucleus sampling.")
    ] = False,
    num_beams: Annotated[
        int, typer.Option("--num_beams", min=1, help="Of --beam_search; 1 is greedy.")
    ] = 1,
    top_p: Annotated[
        float, typer.Option("--top_p", min=0.0, max=1.0, help="Mass of the nucleus.")
    ] = 0.9,
    max_length: Annotated[
        int | None,
        typer.Option("--max_length", min=1, help="Tokens; else 75 (BLIP), 50 (GIT), 256 (others)."),
    ] = None,
    min_length: Annotated[int, typer.Option("--min_length", min=0, help="Tokens, BLIP only.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of nucleus sampling.")] = 42,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help='For BLIP the beginning; else "a picture of ". See README.'),
    ] = None,
    remove_words: Annotated[
        bool, typer.Option("--remove_words", help='GIT only: take out "with the words ...".')
    ] = False,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Write captions beside images: BLIP, GIT, or any image-text-to-text model of transformers.

    Captions that a person wrote are kept; what is done is not done again.
    """
    from sdft.errors import UserError
    from sdft.jobs.caption import run_caption
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    if dtype not in ("auto", "fp32", "fp16", "bf16"):
        raise UserError(
            what=f'no precision "{dtype}"', where="--dtype", fix="one of auto, fp32, fp16, bf16"
        )
    with console_view(quiet=quiet) as console:
        result = run_caption(
            images,
            model=model,
            model_dir=model_dir,
            captioner=captioner,
            force_download=force_download,
            device=device,
            batch_size=batch_size,
            num_workers=workers,
            num_processes=num_processes,
            caption_extension=caption_extension,
            output_path=output_path,
            recursive=recursive,
            overwrite=overwrite,
            generation={
                "beam_search": beam_search,
                "num_beams": num_beams,
                "top_p": top_p,
                "max_length": max_length,
                "min_length": min_length,
                "seed": seed,
                "prompt": prompt,
                "remove_words": remove_words,
                "dtype": dtype,
            },
            command_line=command_line(),
            emit=Fanout([console]),
        )
    output = Output(json=json, json_out=json_out, quiet=quiet)
    deliver(result.as_json(), result_words(result), output)
