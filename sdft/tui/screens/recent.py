"""The projects that were worked on lately."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from sdft.tui.rows import literal
from sdft.tui.screens.ask import Question


class AskRecent(Question[Path | None]):
    """Gives a config file, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False)]

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._paths = paths

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content(self.words("wizard.recent")), classes="box-title")
            rows = [Option(literal(str(path))) for path in self._paths]
            yield OptionList(*rows, compact=True, markup=False)
            yield Static(Content(self.words("ask.keys_list")), classes="box-hint")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._paths[event.option_index])

    def action_leave(self) -> None:
        self.dismiss(None)
