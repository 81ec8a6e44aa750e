"""One of several values: Textual's Select with half its widgets.

What a step costs when it comes up is counted in widgets; the row of a Select is four of them.
"""

from __future__ import annotations

from rich.console import RenderableType
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Select
from textual.widgets._select import NoSelection, SelectCurrent, SelectOverlay

ARROW_WIDTH = 2


class ChoiceRow(SelectCurrent):
    """What was chosen, and the arrow; drawn as one."""

    def compose(self) -> ComposeResult:
        yield from ()

    def update(self, label: RenderableType | NoSelection) -> None:
        self.label = label
        self.has_value = label is not Select.NULL
        self.refresh()

    def render(self) -> Content:
        has_label = self.label is not Select.NULL
        text = Content(str(self.label if has_label else self.placeholder))
        room = self.size.width - ARROW_WIDTH
        is_open = self.parent is not None and self.parent.has_class("-expanded")
        return Content.assemble(
            text.truncate(max(room, 0), pad=True).stylize_before(
                "$foreground" if self.has_value else "$foreground 50%"
            ),
            (" ▲" if is_open else " ▼", "$foreground 50%"),
        )


class Choice(Select[str]):
    """Compact ones only: the row has no border to draw."""

    def compose(self) -> ComposeResult:
        yield ChoiceRow(self.prompt)
        yield SelectOverlay(type_to_search=self._type_to_search).data_bind(compact=Select.compact)

    def _watch_expanded(self, expanded: bool) -> None:
        super()._watch_expanded(expanded)
        self.query_one(ChoiceRow).refresh()
