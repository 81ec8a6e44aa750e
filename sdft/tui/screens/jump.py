"""Jump mode: a letter on everything that takes the keys; that letter goes there."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from textual.events import Key
from textual.geometry import Region
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget

LETTERS = "asdfghjklqwertyuiopzxcvbnm"
MARK_WIDTH = 3


class JumpScreen(ModalScreen[Widget | None]):
    """Gives the widget that was chosen.

    Draws the letters into the picture of what lies below: as widgets they would be laid out and
    painted one by one, over a picture that Textual draws segment by segment.
    """

    COMPONENT_CLASSES = {"jump-letter"}  # noqa: RUF012

    def __init__(self, targets: Sequence[Widget]) -> None:
        super().__init__(id="jump")
        self._targets = dict(zip(LETTERS, targets, strict=False))
        self._lines: list[Strip] = []

    def render_lines(self, crop: Region) -> list[Strip]:
        below = self.app.screen_stack[self.app.screen_stack.index(self) - 1]
        style = self.get_component_rich_style("jump-letter")
        self._lines = below._compositor.render_strips()
        for letter, target in self._targets.items():
            x, y, *_ = target.region
            start, line = max(x - MARK_WIDTH, 0), self._lines[y]
            mark = Strip([Segment(letter.center(MARK_WIDTH), style)], MARK_WIDTH)
            parts = [line.crop(0, start), mark, line.crop(start + MARK_WIDTH)]
            self._lines[y] = Strip.join(parts)
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        return self._lines[y]

    def on_key(self, event: Key) -> None:
        event.stop()
        # Any other key, such as Esc, leaves everything as it is.
        self.dismiss(self._targets.get(event.key))
