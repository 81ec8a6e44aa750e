"""`sdft words`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sdft.cli.argv import FLAG, Option
from sdft.cli.common import new_app
from sdft.cli.output import deliver
from sdft.cli.settings_line import CONTEXT, Page, read_or_help
from sdft.errors import UserError

if TYPE_CHECKING:
    from sdft.jobs.words import WordsResult

PAGE = Page(
    name="words",
    summary="Shows what the model will read of each caption in one epoch: shuffled, dropped and"
    " expanded as the run will do it, with the number of tokens and what is cut off.",
    own=(
        Option(
            name="epoch",
            metavar="N",
            group="output of this command",
            help="Which epoch, counted from 1; the first if not given.",
        ),
        Option(
            name="only_cut",
            takes=FLAG,
            group="output of this command",
            help="Show only what loses words.",
            hyphens=True,
        ),
        Option(
            name="limit",
            metavar="N",
            group="output of this command",
            help="Show only the first so many.",
        ),
    ),
    groups=("captions", "model"),
)

app = new_app()


@app.command(name="words", add_help_option=False, context_settings=CONTEXT)
def command(ctx: typer.Context) -> None:
    asked = read_or_help(PAGE, ctx.args)
    if asked is None:
        return
    epoch = _whole_number("epoch", asked.own.get("epoch", "1"))
    limit = asked.own.get("limit")
    config = asked.load()

    from sdft.jobs.words import run_words
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    with console_view(quiet=asked.output.quiet) as console:
        result = run_words(
            config,
            epoch=epoch,
            only_cut=bool(asked.own.get("only_cut", False)),
            limit=None if limit is None else _whole_number("limit", limit),
            emit=Fanout([console]),
        )
    deliver(result.as_json(), _words(result), asked.output)


def _whole_number(name: str, text: object) -> int:
    if not str(text).isdecimal():
        raise UserError(what="a whole number is wanted", where=f"--{name} {text}")
    return int(str(text))


def _words(result: WordsResult) -> str:
    lines = []
    for row in result.rows:
        repeat = f" (use {row.repeat + 1})" if row.repeat else ""
        lines.append(f"step {row.step}  {row.path}{repeat}  {row.tokens} tokens")
        lines.append(f"    {row.words or '(no words)'}")
        if row.cut:
            lines.append(f"    cut off: {row.cut}")
    if result.rows:
        lines.append("")
    lines.append(
        f"epoch {result.epoch}, seed {result.seed}: {result.uses} uses, {result.empty} without"
        f" words, {result.cut} longer than {result.max_token_length} tokens;"
        f" the longest has {result.longest}"
    )
    return "\n".join(lines)
