"""`sdft bucket`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdft.cli.argv import FLAG, Option
from sdft.cli.common import new_app
from sdft.cli.output import deliver
from sdft.cli.settings_line import CONTEXT, Page, read_or_help

if TYPE_CHECKING:
    from sdft.dataset.report import BucketRow
    from sdft.jobs.bucket import BucketResult

PAGE = Page(
    name="bucket",
    summary="Plans which training size every image gets, without reading pixels, and writes what"
    " becomes of each image. CONFIG is a dataset file or a file of training settings.",
    own=(
        Option(
            name="fates",
            metavar="FILE",
            group="output of this command",
            help="Where the fate of every image is written, .jsonl or .csv; fates.jsonl beside"
            " the dataset file if not given.",
        ),
        Option(
            name="plot",
            metavar="FILE.png",
            group="output of this command",
            help="Draw the table of the buckets.",
        ),
        Option(
            name="write_train_resolution",
            takes=FLAG,
            group="output of this command",
            help="Write each image's bucket into its metadata file, as sd-scripts' preparation"
            " does; `sdft metadata undo` takes it back.",
        ),
    ),
    groups=("images", "buckets"),
)

BAR_COLUMNS = 30
"""Length of the longest bar of the histogram."""

app = new_app()


@app.command(name="bucket", add_help_option=False, context_settings=CONTEXT)
def command(ctx: typer.Context) -> None:
    asked = read_or_help(PAGE, ctx.args)
    if asked is None:
        return
    config = asked.load()

    from sdft.jobs.bucket import run_bucket
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    def path_of(name: str) -> Path | None:
        value = asked.own.get(name)
        return None if value is None else Path(str(value))

    with console_view(quiet=asked.output.quiet) as console:
        result = run_bucket(
            config,
            fates=path_of("fates"),
            plot=path_of("plot"),
            write_resolutions=bool(asked.own.get("write_train_resolution")),
            command_line=" ".join(["sdft bucket", *ctx.args]),
            emit=Fanout([console]),
        )
    deliver(result.as_json(), _words(result), asked.output)


def _words(result: BucketResult) -> str:
    counts = f"{result.images} images: {result.used} used, {result.rejected} not used"
    batches = f"{result.batches} batches an epoch, {result.waste:.1%} of their places empty"
    cut = f"{result.mean_crop:.1%} of an image cut off"
    lines = [
        *table_lines(result.rows),
        "",
        f"{counts}; {batches}; {cut}",
        f"fates of all images: {result.fates}",
    ]
    if result.plot is not None:
        lines.append(f"drawn: {result.plot}")
    if result.resolutions_written is not None:
        lines.append(f"train_resolution: {result.resolutions_written} entries changed")
    return "\n".join(lines)


def table_lines(rows: Sequence[BucketRow]) -> list[str]:
    """Return a table of buckets with a histogram of their images, in ASCII."""
    most = max((row.images for row in rows), default=1)
    several = len({row.dataset for row in rows}) > 1
    lines = [f"{'dataset  ' if several else ''}resolution   images  repeated  batches  cut off"]
    for row in rows:
        width, height = row.resolution
        bar = "#" * max(round(BAR_COLUMNS * row.images / most), 1)
        dataset = f"{row.dataset + 1:7}  " if several else ""
        lines.append(
            f"{dataset}{f'{width}x{height}':11}  {row.images:6}  {row.repeats:8}"
            f"  {row.batches:7}  {row.mean_crop:7.1%}  {bar}"
        )
    return lines
