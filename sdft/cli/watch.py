"""`sdft watch [RUN ...]`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sdft.cli.common import CONTEXT, looked_up, new_app
from sdft.errors import EnvironmentFault, UserError

app = new_app()

REDRAWS_PER_S = "10"
"""At most: over a slow line more of them would arrive late, and nobody reads faster."""


@app.command(name="watch", context_settings=CONTEXT)
def command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN ...]",
            help="A run's folder, or one that has runs: the newest. More are drawn beside it.",
        ),
    ] = None,
    theme: Annotated[
        str, typer.Option("--theme", help="sdft-dark, sdft-light, sdft-clear, sdft-contrast.")
    ] = "",
    graphics: Annotated[
        str, typer.Option("--graphics", help="Pictures: auto, kitty, sixel, blocks or none.")
    ] = "auto",
    ascii_only: Annotated[
        bool, typer.Option("--ascii", help="Draw with ASCII, where other signs tear the lines.")
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", help="Show it in a browser of this machine instead.")
    ] = False,
    port: Annotated[int, typer.Option("--port", help="For --web.", min=1, max=65535)] = 8017,
) -> None:
    """Watch and steer a run, at work or ended, from any terminal. Closing it leaves the run alone.

    Without RUN: the newest run below this folder. SDFT_LANG=ja or the locale gives Japanese.
    """
    from sdft.views.find_runs import run_at

    chosen = [run_at(path) for path in looked_up(runs or [Path()])]
    if web:
        from sdft.tui.web import serve

        options = [f"--theme={theme}"] * bool(theme) + ["--ascii"] * ascii_only
        serve([run.path for run in chosen], options, port=port)
        return
    # In a browser textual-serve's driver takes the place of a terminal.
    is_served = "TEXTUAL_DRIVER" in os.environ
    if not is_served and not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise EnvironmentFault(
            what="watching needs a terminal",
            fix="read events.jsonl or log.txt in the run's folder",
            key="needs_terminal",
        )
    before_textual()

    from sdft.language import language_of
    from sdft.tui.picture import GRAPHICS, ask_terminal
    from sdft.tui.shell import quiet_collector
    from sdft.tui.themes import DARK, THEMES
    from sdft.tui.watch_app import WatchApp

    names = [own.name for own in THEMES]
    one_of("--theme", theme or DARK, names)
    one_of("--graphics", graphics, GRAPHICS)
    if graphics != "none" and not ask_terminal():
        graphics = "none"
    quiet_collector()
    WatchApp(
        chosen[0],
        chosen[1:],
        language=language_of(os.environ),
        theme=theme or DARK,
        ascii_only=ascii_only,
        graphics=graphics,
    ).run()


def before_textual() -> None:
    """Set what Textual reads from the environment."""
    # Textual reads these once, when it is imported. A person's own values are left as they are.
    os.environ.setdefault("TEXTUAL_FPS", REDRAWS_PER_S)
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")


def one_of(option: str, value: str, known: list[str] | tuple[str, ...]) -> None:
    """Check an option's value.

    Raises: UserError.
    """
    if value not in known:
        raise UserError(what=f'{option}: no "{value}"', fix=f"known: {', '.join(known)}")
