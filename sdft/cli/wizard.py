"""`sdft wizard [dataset.toml]`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sdft.cli.common import CONTEXT, new_app
from sdft.cli.watch import before_textual, one_of

app = new_app()


@app.command(name="wizard", context_settings=CONTEXT)
def command(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="A dataset.toml, a config.toml, or their folder; new where there is none.",
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
    no_tui: Annotated[
        bool,
        typer.Option("--no-tui", help="Ask by plain lines: for screen readers and dumb terminals."),
    ] = False,
) -> None:
    """Make the dataset file and the training settings step by step, then start and watch the run.

    Opens files that are there and keeps their comments. SDFT_LANG=ja or the locale gives Japanese.
    """
    is_terminal = sys.stdout.isatty() and sys.stdin.isatty()
    is_dumb = os.environ.get("TERM", "") in ("dumb", "unknown") and os.name != "nt"
    if no_tui or is_dumb or not is_terminal:
        from sdft.language import Words, language_of
        from sdft.tui.prompts import ask_all

        ask_all(path, Path.cwd(), Words(language_of(os.environ)))
        return
    before_textual()

    from sdft.language import language_of
    from sdft.tui.picture import GRAPHICS, ask_terminal
    from sdft.tui.shell import quiet_collector
    from sdft.tui.themes import DARK, THEMES
    from sdft.tui.wizard_app import WizardApp

    one_of("--theme", theme or DARK, [own.name for own in THEMES])
    one_of("--graphics", graphics, GRAPHICS)
    if graphics != "none" and not ask_terminal():
        graphics = "none"
    is_utf8 = "utf" in (sys.stdout.encoding or "").lower()
    wizard = WizardApp(
        path,
        Path.cwd(),
        language=language_of(os.environ) if is_utf8 else "en",
        theme=theme or DARK,
        ascii_only=ascii_only or not is_utf8,
        graphics=graphics,
    )
    quiet_collector()
    wizard.run()
    if wizard.has_unsaved:
        print(wizard.words("wizard.left_unsaved"))
