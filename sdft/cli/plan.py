"""`sdft plan`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sdft.cli.argv import VALUE, Option
from sdft.cli.common import new_app
from sdft.cli.output import deliver, spoken
from sdft.cli.settings_line import CONTEXT, Page, read_or_help
from sdft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUP = "what is planned for"
PAGE = Page(
    name="plan",
    summary="Says what a run comes to before it starts: steps, time, disk, and the memory it takes"
    " by part and by bucket; and what to change, cheapest first, so that it fits the card."
    " CONFIG is as for train, and so is every option.",
    own=(
        Option(
            name="vram",
            takes=VALUE,
            metavar="SIZE",
            group=_GROUP,
            help="Memory of the card, such as 12GB; that of the card found here if not given.",
        ),
        Option(
            name="gpus",
            takes=VALUE,
            metavar="NUMBER",
            group=_GROUP,
            help="Also say what so many GPUs, 8 in a machine, come to: bytes sent, efficiency.",
        ),
        Option(
            name="link",
            takes=VALUE,
            metavar="SPEED",
            group=_GROUP,
            help="Network of each machine, such as 400Gb (bits a second) or 50GB (bytes).",
        ),
        Option(
            name="fit",
            takes=VALUE,
            metavar="FILE.toml",
            group=_GROUP,
            help="Write what has to change into this file of settings, new or old; all else in it"
            " stays as it is.",
        ),
    ),
)

app = new_app()


@app.command(name="plan", add_help_option=False, context_settings=CONTEXT)
def command(ctx: typer.Context) -> None:
    asked = read_or_help(PAGE, ctx.args)
    if asked is None:
        return
    config = asked.load()

    from sdft.jobs.plan import USUAL_LINK, run_plan
    from sdft.units import parse_bytes
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout
    from sdft.views.plan_text import plan_text

    vram = asked.own.get("vram")
    with console_view(quiet=asked.output.quiet) as console:
        result = run_plan(
            config,
            vram_bytes=None if vram is None else parse_bytes(str(vram)),
            emit=Fanout([console]),
            gpus=_number(asked.own.get("gpus")),
            link=str(asked.own.get("link") or USUAL_LINK),
        )
    words = spoken(sys.stdout)
    record = result.as_json()
    text = plan_text(record, words)
    if (file := asked.own.get("fit")) is not None:
        path = Path(str(file))
        _write(path, {name: value for one in result.changes for name, value in one.values.items()})
        text += "\n" + words("plan_row.fit_written", file=path)
        record["fit"] = str(path)
    deliver(record, text, asked.output)


def _number(text: Any) -> int | None:
    """Raises: UserError."""
    if text is not None and not str(text).isdecimal():
        raise UserError(what=f'"{text}" is not a number of GPUs', where="--gpus")
    return None if text is None else int(text)


def _write(path: Path, values: Mapping[str, Any]) -> None:
    """Set values in a file of settings and leave all else as it is.

    Raises: ConfigError where the file cannot be read; EnvironmentFault where it cannot be written.
    """
    from dataclasses import replace

    from sdft.config.write import toml_value
    from sdft.files import write_bytes
    from sdft.tui.draft import edited, file_text

    file = file_text(path)
    text = file.text
    for name, value in values.items():
        text = edited(text, (name,), toml_value(value))
    write_bytes(path, replace(file, text=text).content())
