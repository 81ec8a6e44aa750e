"""F1: what a part of the screen shows, and its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

if TYPE_CHECKING:
    from sdft.tui.shell import Shell


class HelpScreen(ModalScreen[None]):
    """Lies over the screen until Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q,enter", "dismiss", show=False)]

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def compose(self) -> ComposeResult:
        words = cast("Shell", self.app).words
        title = words("common.help_title", part=words(f"part.{self._part}"))
        with Vertical(classes="box"):
            yield Static(Content(title), classes="box-title")
            with VerticalScroll():
                yield Static(Content(words(f"help.{self._part}").strip("\n")))
            yield Static(Content(words("common.close_hint")), classes="box-hint")
