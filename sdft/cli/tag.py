"""`sdft tag`."""

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


def threshold(category: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        f"--{category}_threshold",
        min=0.0,
        help=f"For {category} tags; else --thresh; above 1 none.",
    )
    return option


@app.command(name="tag", context_settings=CONTEXT)
def command(
    images: Images,
    model: Annotated[
        str | None,
        typer.Option("--model", "--repo_id", help="A folder, a file, or a hub ID."),
    ] = None,
    model_dir: ModelDir = Path("wd14_tagger_model"),
    tagger: Annotated[
        str,
        typer.Option("--tagger", help="auto, wd14, tag_mapping, deepdanbooru, deepdanbooru_torch."),
    ] = "auto",
    force_download: ForceDownload = False,
    device: Device = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    num_processes: NumProcesses = 1,
    caption_extension: Annotated[
        str,
        typer.Option("--caption_extension", "--caption_extention", help="Of the files written."),
    ] = ".txt",
    output_path: Annotated[
        Path | None,
        typer.Option("--output_path", help="One .json or .jsonl instead of text files."),
    ] = None,
    recursive: Recursive = False,
    overwrite: Overwrite = False,
    append_tags: Annotated[
        bool, typer.Option("--append_tags", help="Keep a file's tags, add only new ones.")
    ] = False,
    thresh: Annotated[
        float | None,
        typer.Option(
            "--thresh", min=0.0, help="Least probability; 0.35 for WD14, 0.5 for DeepDanbooru."
        ),
    ] = None,
    general_threshold: Annotated[float | None, threshold("general")] = None,
    character_threshold: Annotated[float | None, threshold("character")] = None,
    meta_threshold: Annotated[float | None, threshold("meta")] = None,
    model_threshold: Annotated[float | None, threshold("model")] = None,
    copyright_threshold: Annotated[float | None, threshold("copyright")] = None,
    artist_threshold: Annotated[float | None, threshold("artist")] = None,
    remove_underscore: Annotated[
        bool, typer.Option("--remove_underscore", help="Spaces, in names of 4 characters or more.")
    ] = False,
    undesired_tags: Annotated[
        str, typer.Option("--undesired_tags", help='Left out: "a, b"; compared as written.')
    ] = "",
    character_tag_expand: Annotated[
        bool, typer.Option("--character_tag_expand", help="name_(series) becomes name, series.")
    ] = False,
    tag_replacement: Annotated[
        str | None, typer.Option("--tag_replacement", help='"old,new;other,new other"')
    ] = None,
    always_first_tags: Annotated[
        str | None, typer.Option("--always_first_tags", help='Put in front if present: "a, b".')
    ] = None,
    use_rating_tags: Annotated[
        bool, typer.Option("--use_rating_tags", help="The rating in front.")
    ] = False,
    use_rating_tags_as_last_tag: Annotated[
        bool, typer.Option("--use_rating_tags_as_last_tag", help="The rating at the end.")
    ] = False,
    use_quality_tags: Annotated[
        bool, typer.Option("--use_quality_tags", help="The quality in front.")
    ] = False,
    use_quality_tags_as_last_tag: Annotated[
        bool, typer.Option("--use_quality_tags_as_last_tag", help="The quality at the end.")
    ] = False,
    character_tags_first: Annotated[
        bool, typer.Option("--character_tags_first", help="Characters before other tags.")
    ] = False,
    caption_separator: Annotated[
        str, typer.Option("--caption_separator", help="Between tags.")
    ] = ", ",
    tag_order: Annotated[
        str, typer.Option("--tag_order", help="model (its own), probability or alphabet.")
    ] = "model",
    escape_tags: Annotated[
        bool, typer.Option("--escape_tags", help="Write ( ) and \\ with a \\ in front.")
    ] = False,
    frequency_tags: Annotated[
        bool, typer.Option("--frequency_tags", help="At the end, print how often each tag came.")
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Taken for sd-scripts' sake: it is always ONNX.")
    ] = False,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Write tags beside images, by a WD14 tagger or DeepDanbooru.

    Needs onnxruntime. Files that a person wrote are kept; what is done is not done again.
    """
    from sdft.errors import UserError
    from sdft.jobs.tag import DEFAULT_MODEL, run_tag
    from sdft.labelers.selection import TAG_ORDERS, TagChoice, parse_replacements, parse_tag_list
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    if tag_order not in TAG_ORDERS:
        raise UserError(
            what=f'no order "{tag_order}"',
            where="--tag_order",
            fix=f"one of {', '.join(TAG_ORDERS)}",
        )
    thresholds = {
        "general": general_threshold,
        "character": character_threshold,
        "meta": meta_threshold,
        "model": model_threshold,
        "copyright": copyright_threshold,
        "artist": artist_threshold,
    }
    choice = TagChoice(
        thresh=thresh,
        thresholds={name: value for name, value in thresholds.items() if value is not None},
        remove_underscore=remove_underscore,
        undesired_tags=parse_tag_list(undesired_tags, caption_separator),
        character_tag_expand=character_tag_expand,
        tag_replacement=parse_replacements(tag_replacement),
        use_rating_tags=use_rating_tags,
        use_rating_tags_as_last_tag=use_rating_tags_as_last_tag,
        use_quality_tags=use_quality_tags,
        use_quality_tags_as_last_tag=use_quality_tags_as_last_tag,
        character_tags_first=character_tags_first,
        always_first_tags=parse_tag_list(always_first_tags or "", caption_separator),
        caption_separator=caption_separator,
        tag_order=tag_order,
        escape_tags=escape_tags,
    )
    with console_view(quiet=quiet) as console:
        result = run_tag(
            images,
            choice=choice,
            model=model or DEFAULT_MODEL,
            model_dir=model_dir,
            tagger=tagger,
            force_download=force_download,
            device=device,
            batch_size=batch_size,
            num_workers=workers,
            num_processes=num_processes,
            caption_extension=caption_extension,
            output_path=output_path,
            recursive=recursive,
            overwrite=overwrite,
            append_tags=append_tags,
            frequency_tags=frequency_tags,
            command_line=command_line(),
            emit=Fanout([console]),
        )
    output = Output(json=json, json_out=json_out, quiet=quiet)
    deliver(result.as_json(), result_words(result), output)
