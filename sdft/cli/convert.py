"""`sdft convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

if TYPE_CHECKING:
    from sdft.jobs.convert import ConvertResult

app = new_app()

PRECISIONS = ("float", "fp16", "bf16")
FORMS = ("safetensors", "ckpt", "diffusers", "diffusers_safetensors", "pt")


def _option(name: str, help_text: str, *, hidden: bool = False) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=help_text, hidden=hidden)
    return option


@app.command(name="convert", context_settings=CONTEXT)
def command(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="A model file or diffusers folder; a hypernetwork."),
    ],
    destination: Annotated[
        Path,
        typer.Argument(metavar="DST", help="The ending says the form; none makes a folder."),
    ],
    save_model_as: Annotated[
        str | None,
        typer.Option("--save-model-as", metavar="FORM", help=", ".join(FORMS)),
    ] = None,
    save_precision: Annotated[
        str | None,
        typer.Option(
            "--save-precision",
            "--save-precision-as",
            metavar="TYPE",
            help="float, fp16 or bf16; as it is if not set.",
        ),
    ] = None,
    vae: Annotated[
        Path | None, typer.Option("--vae", help="Put this VAE in, from a file or folder.")
    ] = None,
    ema: Annotated[
        str, typer.Option("--ema", metavar="use|drop", help="The running averages of the U-Net.")
    ] = "drop",
    variant: Annotated[
        str | None, typer.Option("--variant", help="Of a diffusers folder, such as fp16.")
    ] = None,
    v1: Annotated[bool, typer.Option("--v1", help="Say that it is an SD 1.x.")] = False,
    v2: Annotated[bool, typer.Option("--v2", help="Say that it is an SD 2.x.")] = False,
    v_parameterization: Annotated[
        bool | None,
        typer.Option(
            "--v-parameterization/--no-v-parameterization",
            help="Whether it predicts v, where the file does not say.",
        ),
    ] = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(
            "--prediction-type",
            metavar="TYPE",
            help="epsilon or v_prediction, where what the file says is wrong.",
        ),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="Added to the copy's own.")
    ] = None,
    epoch: Annotated[
        int | None, typer.Option("--epoch", min=0, help="Counter to write into a .ckpt.")
    ] = None,
    global_step: Annotated[
        int | None, typer.Option("--global-step", min=0, help="Counter to write into a .ckpt.")
    ] = None,
    write_hash: Annotated[
        bool, typer.Option("--hash/--no-hash", help="Write the SHA-256 of the tensors into it.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace DST where it exists.")
    ] = False,
    fp16: Annotated[bool, _option("--fp16", "As --save_precision fp16.")] = False,
    bf16: Annotated[bool, _option("--bf16", "As --save_precision bf16.")] = False,
    as_float: Annotated[bool, _option("--float", "As --save_precision float.")] = False,
    use_safetensors: Annotated[
        bool, _option("--use-safetensors", "The default; for sd-scripts' lines.", hidden=True)
    ] = False,
    linear: Annotated[
        bool,
        _option("--unet-use-linear-projection", "Always so for SD 2.x.", hidden=True),
    ] = False,
    reference_model: Annotated[
        str | None,
        typer.Option("--reference-model", help="Not needed.", hidden=True),
    ] = None,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Write a model in another form: one file or a diffusers folder, another precision."""
    from sdft.cli.convert_words import choice, metadata_texts, one_precision, which_generation
    from sdft.jobs.convert import run_convert
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    precision = one_precision(save_precision, fp16=fp16, bf16=bf16, as_float=as_float)
    with console_view(quiet=quiet) as console:
        result = run_convert(
            source,
            destination,
            form=choice("--save_model_as", save_model_as, FORMS),
            save_precision=choice("--save_precision", precision, PRECISIONS),
            vae=vae,
            ema=choice("--ema", ema, ("use", "drop")) or "drop",
            variant=variant,
            v2=which_generation(v1=v1, v2=v2),
            v_parameterization=v_parameterization,
            prediction_type=choice(
                "--prediction_type", prediction_type, ("epsilon", "v_prediction")
            ),
            metadata=metadata_texts(metadata),
            epoch=epoch,
            global_step=global_step,
            with_hash=write_hash,
            overwrite=overwrite,
            emit=Fanout([console]),
        )
    deliver(result.as_json(), _words(result), Output(json=json, json_out=json_out, quiet=quiet))


def _words(result: ConvertResult) -> str:
    from sdft.units import format_bytes, format_duration

    dtypes = ", ".join(sorted({dtype for names in result.dtypes.values() for dtype in names}))
    took = format_duration(result.duration_s)
    size = format_bytes(result.size_bytes)
    return f"{result.destination}  ({result.form}, {dtypes}, {size}, in {took})"
