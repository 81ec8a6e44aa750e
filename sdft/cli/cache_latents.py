"""`sdft cache-latents`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sdft.cli.argv import FLAG, Option
from sdft.cli.common import new_app
from sdft.cli.output import deliver
from sdft.cli.settings_line import CONTEXT, Page, read_or_help
from sdft.errors import UserError
from sdft.units import format_bytes

if TYPE_CHECKING:
    from sdft.jobs.cache_latents import CacheLatentsResult

PAGE = Page(
    name="cache-latents",
    summary="Encodes every image once and keeps the latents on disk. Images that are there"
    " already, with the same content, size and VAE, are not encoded again.",
    own=(
        Option(
            name="prune",
            takes=FLAG,
            group="output of this command",
            help="Afterwards show what else is in the cache: latents of other images, sizes and"
            " VAEs.",
        ),
        Option(
            name="delete",
            takes=FLAG,
            group="output of this command",
            help="With --prune: remove it.",
        ),
    ),
    groups=("model", "images", "buckets", "cache", "machine"),
)

app = new_app()


@app.command(name="cache-latents", add_help_option=False, context_settings=CONTEXT)
def command(ctx: typer.Context) -> None:
    asked = read_or_help(PAGE, ctx.args)
    if asked is None:
        return
    if asked.own.get("delete") and not asked.own.get("prune"):
        raise UserError(what="--delete goes with --prune", where="--delete")
    config = asked.load()

    from sdft.cli.processes import run_here_or_apart
    from sdft.events import ignore
    from sdft.jobs.cache_latents import run_cache_latents
    from sdft.processes import own_place
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    if run_here_or_apart(config, ctx, again=ctx.args, output=asked.output):
        return
    if not own_place().is_main:
        run_cache_latents(config, emit=ignore)
        return
    with console_view(quiet=asked.output.quiet) as console:
        result = run_cache_latents(
            config,
            emit=Fanout([console]),
            prune_cache=bool(asked.own.get("prune")),
            delete=bool(asked.own.get("delete")),
        )
    deliver(result.as_json(), _words(result), asked.output)


def _words(result: CacheLatentsResult) -> str:
    lines = [
        f"{result.images} images: {result.encoded} encoded, {result.reused} already there,"
        f" {result.rejected} not used",
        f"cache  {result.cache}",
    ]
    if result.prunable is not None:
        found = result.prunable
        size = f"{found.entries} latents, {format_bytes(found.freed_bytes)}"
        if found.done:
            lines.append(f"removed: {size}; {found.kept} kept")
        else:
            lines.append(
                f"not used by this config: {size}; {found.kept} are used. Other configs that share"
                " the cache would have to encode theirs again. --prune --delete removes them"
            )
    return "\n".join(lines)
