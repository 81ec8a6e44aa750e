"""The program behind `sdft watch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sdft.rundir import RunDir
from sdft.tui.screens.watch import WatchScreen
from sdft.tui.shell import Shell
from sdft.tui.themes import DARK


class WatchApp(Shell):
    """One dashboard, until the person leaves it."""

    # Textual reads a screen's own styles when it is pushed; the first screen is not.
    CSS_PATH: ClassVar = [*Shell.CSS_PATH, "styles/watch.tcss"]

    def __init__(
        self,
        run: RunDir,
        others: Sequence[RunDir] = (),
        *,
        language: str,
        theme: str = DARK,
        ascii_only: bool = False,
        graphics: str = "auto",
    ) -> None:
        super().__init__(language=language, theme=theme, ascii_only=ascii_only)
        self.title = f"sdft watch {run.path.name}"
        self._first = WatchScreen(
            run, others, graphics="ascii" if ascii_only and graphics != "none" else graphics
        )

    def get_default_screen(self) -> WatchScreen:
        return self._first
