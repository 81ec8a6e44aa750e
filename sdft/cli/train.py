"""`sdft train`."""

from __future__ import annotations

import typer

from sdft.cli.settings_line import CONTEXT, Page, read_or_help

PAGE = Page(
    name="train",
    summary="Fine-tunes the model that CONFIG names on the images that it names. Every setting is"
    " an option too. The command line of sd-scripts' fine_tune.py works as it is.",
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(name="train", add_help_option=False, context_settings=dict(CONTEXT))
def command(ctx: typer.Context) -> None:
    asked = read_or_help(PAGE, ctx.args)
    if asked is None:
        return
    print(asked)
