"""The program behind `sdft wizard`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from textual.screen import Screen

from sdft.errors import ConfigError, SdftError
from sdft.tui.keeping import Keeping
from sdft.tui.project import opened
from sdft.tui.screens.mend import MendScreen
from sdft.tui.screens.setting_help import SettingHelp
from sdft.tui.screens.wizard import WizardScreen
from sdft.tui.shell import Shell
from sdft.tui.themes import DARK
from sdft.tui.widgets.setting_field import SettingField

_AT_LINE = re.compile(r"^(.*):\d+$")


class WizardApp(Shell):
    """Opens a project, mends its files first where they have a mistake of TOML."""

    CSS_PATH: ClassVar = [*Shell.CSS_PATH, "styles/watch.tcss", "styles/wizard.tcss"]

    def __init__(
        self,
        path: Path | None,
        cwd: Path,
        *,
        language: str,
        theme: str = DARK,
        ascii_only: bool = False,
        graphics: str = "auto",
        keeping: Keeping | None = None,
    ) -> None:
        """Raises: SdftError where the path cannot be worked on at all."""
        super().__init__(language=language, theme=theme, ascii_only=ascii_only)
        self.title = "sdft wizard"
        self.cwd = cwd
        self.has_unsaved = False
        """When it was left: whether there are changes that are not in the files."""
        self._path = path
        self._keeping = keeping or Keeping()
        self._graphics = "ascii" if ascii_only and graphics != "none" else graphics
        self._first = self._screen_for(path)

    def on_mount(self) -> None:
        # Not as the default screen: only one that was pushed can be exchanged for another.
        self.push_screen(self._first)

    def open(self, path: Path | None) -> None:
        """Go to another project."""
        try:
            screen = self._screen_for(path)
        except SdftError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self._path = path
        self.switch_screen(screen)

    def mended(self) -> None:
        self.open(self._path)

    def _screen_for(self, path: Path | None) -> Screen[None]:
        try:
            draft = opened(path, self.cwd)
        except ConfigError as error:
            place = _AT_LINE.match(error.problems[0].where)
            if place is None:
                raise
            return MendScreen(Path(place[1]), error)
        return WizardScreen(draft, self.cwd, keeping=self._keeping, graphics=self._graphics)

    def action_explain(self) -> None:
        """Show what the focused field is; elsewhere, what the step is about."""
        node = self.screen.focused
        fields = [part for part in node.ancestors_with_self if isinstance(part, SettingField)] if (
            node is not None
        ) else []  # fmt: skip
        if fields and isinstance(self.screen, WizardScreen):
            self.push_screen(SettingHelp(fields[0]))
        else:
            super().action_explain()

    async def action_quit(self) -> None:
        """Leave; what is not saved is kept for the next time."""
        for screen in self.screen_stack:
            if isinstance(screen, WizardScreen):
                screen.keep_now()
                self.has_unsaved = screen.draft.is_changed
        self.exit()
