"""What the commands that several processes share do with `--num_processes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdft.cli.output import Output
from sdft.processes import own_place, require_all_started

if TYPE_CHECKING:
    import typer

    from sdft.config.load import Config


def run_here_or_apart(
    config: Config, ctx: typer.Context, *, again: Sequence[str], output: Output
) -> bool:
    """Start the processes that were asked for and wait for them; False says to work here.

    `again` are the words of a new start after a crash.

    Raises: typer.Exit with the code of the processes; EnvironmentFault where one was killed;
        UserError where accelerate has started fewer than it was asked for.
    """
    settings = config.training
    if settings.num_processes == 1:
        require_all_started(ctx.info_name or "")
        return False
    if own_place().size > 1:
        return False

    import typer

    from sdft.cli.shown_line import shown_line
    from sdft.jobs.processes import run_processes
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    name = ctx.info_name or ""
    line = shown_line(["sdft", name, *again])
    with console_view(quiet=output.quiet) as console:
        code = run_processes(
            [name, *ctx.args],
            [name, *again],
            num_processes=settings.num_processes,
            max_restarts=settings.max_restarts,
            port=settings.main_process_port,
            resume_hint=f"go on from what was saved with: {line}",
            emit=Fanout([console]),
        )
    if code:
        raise typer.Exit(code)
    return True
