"""`sdft cache-latents`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sdft.cli.common import new_app
from sdft.cli.output import deliver
from sdft.cli.settings_line import CONTEXT, Page, read_or_help

if TYPE_CHECKING:
    from sdft.jobs.cache_latents import CacheLatentsResult

PAGE = Page(
    name="cache-latents",
    summary="Encodes every image once and keeps the latents on disk. Images that are there"
    " already, with the same content, size and VAE, are not encoded again.",
    groups=("model", "images", "buckets", "cache", "machine"),
)

app = new_app()


@app.command(name="cache-latents", add_help_option=False, context_settings=CONTEXT)
def command(ctx: typer.Context) -> None:
    asked = read_or_help(PAGE, ctx.args)
    if asked is None:
        return
    config = asked.load()

    from sdft.jobs.cache_latents import run_cache_latents
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    with console_view(quiet=asked.output.quiet) as console:
        result = run_cache_latents(config, emit=Fanout([console]))
    deliver(result.as_json(), _words(result), asked.output)


def _words(result: CacheLatentsResult) -> str:
    return (
        f"{result.images} images: {result.encoded} encoded, {result.reused} already there,"
        f" {result.rejected} not used\ncache  {result.cache}"
    )
