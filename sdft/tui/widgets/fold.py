"""A row that opens and closes what stands below it."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static


class Fold(Static, can_focus=True):
    """Only the row: Textual's Collapsible is three widgets, and keeps what it hides."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "turn", show=False)]

    is_open: reactive[bool] = reactive(False, init=False)

    class Toggled(Message):
        def __init__(self, fold: Fold) -> None:
            super().__init__()
            self.fold = fold

    def __init__(self, title: str, *, id: str) -> None:
        super().__init__(id=id)
        self._title = title

    def render(self) -> Content:
        return Content(f"{'▼' if self.is_open else '▶'} {self._title}")

    def watch_is_open(self) -> None:
        self.post_message(self.Toggled(self))

    def action_turn(self) -> None:
        self.is_open = not self.is_open

    def on_click(self) -> None:
        self.action_turn()
