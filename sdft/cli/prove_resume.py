"""`sdft prove-resume`."""

from __future__ import annotations

import typer

from sdft.cli.argv import VALUE, Option
from sdft.cli.common import new_app
from sdft.cli.output import deliver
from sdft.cli.settings_line import CONTEXT, Page, read_or_help

_GROUP = "the proof"
PAGE = Page(
    name="prove-resume",
    summary="Shows whether a resumed run is the run, to the bit, on this machine and with these"
    " settings: trains a few steps twice without disturbance, then once more, killed at random"
    " instants and resumed. Takes every setting of train.",
    own=(
        Option(name="steps", takes=VALUE, metavar="N", group=_GROUP, help="Steps; 20 if not set."),
        Option(name="kills", takes=VALUE, metavar="N", group=_GROUP, help="Kills; 3 if not set."),
        Option(
            name="kill_seed",
            takes=VALUE,
            metavar="N",
            group=_GROUP,
            help="Draws the instants; 1 if not set.",
            hyphens=True,
        ),
        Option(name="keep", takes="flag", group=_GROUP, help="Keep the three runs."),
    ),
)

app = new_app()


@app.command(name="prove-resume", add_help_option=False, context_settings=CONTEXT)
def command(ctx: typer.Context) -> None:
    asked = read_or_help(PAGE, ctx.args)
    if asked is None:
        return
    config = asked.load(for_training=True)

    from sdft.errors import DataError, UserError
    from sdft.jobs.prove_resume import run_prove_resume
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout

    def number(name: str, default: int) -> int:
        value = asked.own.get(name, default)
        try:
            return int(str(value))
        except ValueError as error:
            raise UserError(what=f"{value} is no whole number", where=f"--{name}") from error

    with console_view(quiet=asked.output.quiet) as console:
        result = run_prove_resume(
            config,
            num_steps=number("steps", 20),
            num_kills=number("kills", 3),
            draw_seed=number("kill_seed", 1),
            keep=bool(asked.own.get("keep")),
            emit=Fanout([console]),
        )
    deliver(result.as_json(), result.words(), asked.output)
    if not result.exact:
        raise typer.Exit(DataError.exit_code)
