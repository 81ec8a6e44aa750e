"""`sdft bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sdft.cli.argv import VALUE, Option
from sdft.cli.common import new_app
from sdft.cli.output import deliver
from sdft.cli.settings_line import CONTEXT, Page, read_or_help

if TYPE_CHECKING:
    from sdft.jobs.bench import BenchResult

_GROUP = "what is measured"
PAGE = Page(
    name="bench",
    summary="Measures how fast training is here, beside the bare minimum for the same work."
    " STAGE, the first word, is data, encode, step, save or all. Models have random weights;"
    " nothing is downloaded. Takes every setting of train, such as --mixed_precision.",
    own=(
        Option(
            name="family",
            takes=VALUE,
            metavar="sd1|sd2|sd2-v|toy",
            group=_GROUP,
            help="Sizes of the model; toy on a CPU, else sd1, if not given.",
        ),
        Option(
            name="resolution",
            takes=VALUE,
            metavar="N",
            group=_GROUP,
            help="Side of the square pictures in px.",
        ),
        Option(
            name="batch_size",
            takes=VALUE,
            metavar="N",
            group=_GROUP,
            help="Pictures a step; 4 if not given, 1 of a full-size model on a CPU.",
        ),
    ),
    groups=("machine", "memory", "optimizer"),
)

app = new_app()


@app.command(name="bench", add_help_option=False, context_settings=CONTEXT)
def command(ctx: typer.Context) -> None:
    words = list(ctx.args)
    stage = "all"
    # A word in front that is neither an option nor a file of settings.
    if words and not words[0].startswith("-") and "." not in words[0]:
        stage = words.pop(0)
    asked = read_or_help(PAGE, words)
    if asked is None:
        return
    config = asked.load(need_dataset=False)

    from sdft.errors import UserError
    from sdft.jobs.bench import BenchWishes, run_bench
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    def number(name: str) -> int | None:
        value = asked.own.get(name)
        try:
            return None if value is None else int(str(value))
        except ValueError as error:
            raise UserError(what=f"{value} is no whole number", where=f"--{name}") from error

    family = asked.own.get("family")
    wishes = BenchWishes(
        stage=stage,
        family=None if family is None else str(family),
        resolution_px=number("resolution"),
        batch_size=number("batch_size"),
    )
    with console_view(quiet=asked.output.quiet) as console:
        result = run_bench(config.training, wishes, emit=Fanout([console]))
    deliver(result.as_json(), _words(result), asked.output)


def _words(result: BenchResult) -> str:
    from sdft.units import format_bytes

    lines = [
        f"{result.family} at {result.resolution_px} px, batch {result.batch_size}, {result.device}"
    ]
    width = max(len(row.name) for row in result.rows)
    for row in result.rows:
        value = format_bytes(row.value) if row.unit == "bytes" else f"{row.value:.4g} {row.unit}"
        beside = "" if row.ratio is None else f"  {row.ratio:.3f} of: {row.against}"
        lines.append(f"{row.name:{width}}  {value:>16}{beside}")
    return "\n".join(lines)
