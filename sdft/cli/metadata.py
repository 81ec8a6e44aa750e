"""`sdft metadata merge|clean|check|show|undo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver

if TYPE_CHECKING:
    from sdft.jobs.metadata import CheckResult, ShowResult, UndoResult, WrittenMetadata

app = new_app()

Images = Annotated[list[str], typer.Argument(help="Folders, files, wildcards.", metavar="IMAGES")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Folders below too.")]
CaptionExtension = Annotated[
    str,
    typer.Option(
        "--caption_extension", "--caption_extention", help="Caption files beside the images."
    ),
]
TagsExtension = Annotated[
    str, typer.Option("--tags_extension", help="Tag files beside the images.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what a person may have written.")
]
DryRun = Annotated[bool, typer.Option("--dry_run", help="Write nothing; show what would change.")]

NUM_FINDINGS_SHOWN = 200
"""More go to the JSON result only."""


@app.callback()
def metadata() -> None:
    """Captions and tags in one file: merge, clean, check, show, undo."""


@app.command(name="merge", context_settings=CONTEXT)
def merge(
    images: Images,
    out: Annotated[
        Path, typer.Option("--out", help="The metadata file: .json, .jsonl or .parquet.")
    ],
    in_json: Annotated[
        Path | None, typer.Option("--in_json", help="Start from this file instead of from --out.")
    ] = None,
    full_path: Annotated[
        bool, typer.Option("--full_path", help="Absolute paths as keys, for any folder.")
    ] = False,
    caption_extension: CaptionExtension = ".caption",
    tags_extension: TagsExtension = ".txt",
    recursive: Recursive = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Merge the caption and tag files beside images into one metadata file.

    Keys are paths below the images' folder. Values that the file has stay unless --overwrite.
    """
    from sdft.jobs.metadata import run_merge
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    with console_view(quiet=quiet) as console:
        result = run_merge(
            images,
            out=out,
            in_json=in_json,
            full_path=full_path,
            caption_extension=caption_extension,
            tags_extension=tags_extension,
            recursive=recursive,
            overwrite=overwrite,
            dry_run=dry_run,
            command_line=command_line(),
            emit=Fanout([console]),
        )
    text = _written_words(result, dry_run)
    if result.counts["kept"]:
        text += f"\n{result.counts['kept']} values differ from the files and were kept"
        text += " (--overwrite replaces them)"
    if result.image_dir is not None:
        text += f"\nin the dataset file: image_dir = '{result.image_dir}'"
        text += f", metadata_file = '{result.out}'"
    deliver(result.as_json(), text, Output(json=json, json_out=json_out, quiet=quiet))


@app.command(name="clean", context_settings=CONTEXT)
def clean(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A metadata file.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Where to write; else IN is replaced.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="Your own rules: replace, drop, alias (TOML).")
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Clean tags and captions by sd-scripts' rules and your own. `undo` brings IN back."""
    from sdft.jobs.metadata import run_clean
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    with console_view(quiet=quiet) as console:
        result = run_clean(
            source,
            out=out,
            rules_file=rules,
            overwrite=overwrite,
            dry_run=dry_run,
            command_line=command_line(),
            emit=Fanout([console]),
        )
    deliver(
        result.as_json(),
        _written_words(result, dry_run),
        Output(json=json, json_out=json_out, quiet=quiet),
    )


@app.command(name="check", context_settings=CONTEXT)
def check(
    places: Annotated[
        list[str],
        typer.Argument(metavar="META|IMAGES", help="A metadata file, images, or both."),
    ],
    caption_extension: CaptionExtension = ".caption",
    tags_extension: TagsExtension = ".txt",
    recursive: Recursive = False,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """List images without words, words without images, doubles, long captions, odd spellings.

    Ends with 4 where training would miss something, else with 0.
    """
    from sdft.jobs.metadata import run_check
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    with console_view(quiet=quiet) as console:
        result = run_check(
            places,
            recursive=recursive,
            caption_extension=caption_extension,
            tags_extension=tags_extension,
            emit=Fanout([console]),
        )
    output = Output(json=json, json_out=json_out, quiet=quiet)
    deliver(result.as_json(), _check_words(result), output)
    if result.num_errors:
        raise typer.Exit(4)


@app.command(name="show", context_settings=CONTEXT)
def show(
    source: Annotated[Path, typer.Argument(metavar="META", help="A metadata file.")],
    top: Annotated[int, typer.Option("--top", help="How many lines; 0 for all.")] = 50,
    words: Annotated[
        bool, typer.Option("--words", help="The words of captions instead of the tags.")
    ] = False,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Print how many images have each tag, most frequent first."""
    from sdft.jobs.metadata import run_show

    result = run_show(source)
    output = Output(json=json, json_out=json_out, quiet=quiet)
    deliver(result.as_json(), _show_words(result, top, words), output)


@app.command(name="undo", context_settings=CONTEXT)
def undo(
    places: Annotated[
        list[str],
        typer.Argument(metavar="META|FOLDER", help="A metadata file, or a folder of words."),
    ],
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Put back what the last caption, tag or metadata command replaced there.

    What was edited since, and what was newly made, stays as it is.
    """
    from sdft.jobs.metadata import run_undo

    result = run_undo(places)
    output = Output(json=json, json_out=json_out, quiet=quiet)
    deliver(result.as_json(), _undo_words(result), output)


def command_line() -> str:
    """Return what the person typed, for the log of writes."""
    return " ".join(["sdft", *sys.argv[1:]])


def _written_words(result: WrittenMetadata, dry_run: bool) -> str:
    from sdft.dataset.changes import changes_text

    counts = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in result.counts.items())
    summary = f"{result.out}: {result.entries} entries, {counts}"
    if dry_run:
        would = f"would change {len(result.changes)} values; nothing was written"
        return "\n".join(part for part in (changes_text(result.changes), summary, would) if part)
    if not result.written:
        return f"{summary}\nnothing to change"
    return f"{summary}\nwritten; `sdft metadata undo` puts back what was there"


def _check_words(result: CheckResult) -> str:
    lines = [
        f"{'error' if finding.is_error else 'look at'}: {finding.kind}: {finding.where}:"
        f" {finding.what}"
        for finding in result.findings[:NUM_FINDINGS_SHOWN]
    ]
    if len(result.findings) > NUM_FINDINGS_SHOWN:
        lines.append(f"... and {len(result.findings) - NUM_FINDINGS_SHOWN} more (--json has all)")
    others = len(result.findings) - result.num_errors
    lines.append(
        f"{result.entries} entries, {result.images} images:"
        f" {result.num_errors} errors, {others} to look at"
    )
    return "\n".join(lines)


def _show_words(result: ShowResult, top: int, words: bool) -> str:
    rows = result.words if words else result.tags
    shown = rows[: top or None]
    lines = [f"{count:8}  {name}" for name, count in shown]
    if len(shown) < len(rows):
        lines.append(f"... and {len(rows) - len(shown)} more (--top 0 shows all)")
    return "\n".join([*lines, f"{result.entries} entries, {len(rows)} different"])


def _undo_words(result: UndoResult) -> str:
    lines = []
    for one in result.undone:
        lines.append(f"undone: {one.line}")
        lines.append(f"  put back: {len(one.restored)} files")
        if one.edited:
            lines.append(f"  left, because they were edited since: {len(one.edited)} files")
            lines += [f"    {path}" for path in one.edited]
        if one.new:
            lines.append(f"  left, because nothing was there before: {len(one.new)} files")
    return "\n".join(lines)
