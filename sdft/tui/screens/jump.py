"""Jump mode: a letter on everything that takes the keys; that letter goes there."""

from __future__ import annotations

from collections.abc import Sequence

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

    def on_mount(self) -> None:
        # After what lies below is painted: both at once would hold up the keys.
        self.call_after_refresh(self._show_letters)

    async def _show_letters(self) -> None:
        await self.mount_all(self._letter(*pair) for pair in self._targets.items())

    def _letter(self, letter: str, target: Widget) -> Label:
        label = Label(letter, classes="jump-letter")
        label.styles.offset = (max(target.region.x - 3, 0), target.region.y)
        return label

    def on_key(self, event: Key) -> None:
        event.stop()
        # Any other key, such as Esc, leaves everything as it is.
        self.dismiss(self._targets.get(event.key))
