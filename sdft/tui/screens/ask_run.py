"""What to do where a run lies already: go on with it, or begin anew."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from sdft.tui.screens.ask import Question


class AskRun(Question[tuple[str, ...] | None]):
    """Gives the flags for `sdft train`, or None for not now."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False)]

    def __init__(self, *, is_finished: bool) -> None:
        super().__init__()
        self._is_finished = is_finished

    def compose(self) -> ComposeResult:
        name = "start.finished" if self._is_finished else "start.unfinished"
        rows = [] if self._is_finished else [Option(self.words("start.resume"), id="--resume=auto")]
        rows.append(Option(self.words("start.overwrite"), id="--overwrite"))
        with Vertical(classes="box"):
            yield Static(Content(self.words(name)), classes="box-title")
            yield OptionList(*rows, compact=True, markup=False)
            yield Static(Content(self.words("ask.keys_list")), classes="box-hint")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss((str(event.option_id),))

    def action_leave(self) -> None:
        self.dismiss(None)
