"""Jump mode: a letter on everything that takes the keys; that letter goes there."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.events import Key
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Label

LETTERS = "asdfghjklqwertyuiopzxcvbnm"


class JumpScreen(ModalScreen[Widget | None]):
    """Gives the widget that was chosen."""

    def __init__(self, targets: Sequence[Widget]) -> None:
        super().__init__(id="jump")
        self._targets = dict(zip(LETTERS, targets, strict=False))

    def compose(self) -> ComposeResult:
        for letter, target in self._targets.items():
            label = Label(letter, classes="jump-letter")
            region = target.region
            label.styles.offset = (max(region.x - 3, 0), region.y)
            yield label

    def on_key(self, event: Key) -> None:
        event.stop()
        # Any other key, such as Esc, leaves everything as it is.
        self.dismiss(self._targets.get(event.key))
