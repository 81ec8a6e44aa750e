"""The steps side by side, the present one underlined; a click goes to one.

Textual's own Tabs are eleven widgets for it, a quarter of what a step's screen is laid out of.
"""

from __future__ import annotations

from collections.abc import Mapping

from textual import events
from textual.content import Content
from textual.message import Message
from textual.style import Style
from textual.widget import Widget

LINE = "━"
LEFT_END = "╸"
RIGHT_END = "╺"


class StepRow(Widget, can_focus=False):
    """Knows the steps by name, and what stands for each."""

    ALLOW_SELECT = False

    class Chosen(Message):
        def __init__(self, step: str) -> None:
            super().__init__()
            self.step = step

    def __init__(self, labels: Mapping[str, Content], at: str, *, id: str) -> None:
        super().__init__(id=id)
        self._shown = (dict(labels), at)
        self._pointed_at = ""

    def show(self, labels: Mapping[str, Content], at: str) -> None:
        shown = (dict(labels), at)
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    def render(self) -> Content:
        labels, at = self._shown
        parts = {step: self._part(step, label) for step, label in labels.items()}
        steps = list(parts)
        # Where not all have room, the present one does.
        while steps[0] != at and self._end(parts, steps, at) > self.size.width:
            del steps[0]
        row = Content("").join(parts[step] for step in steps)
        end = self._end(parts, steps, at)
        return Content("\n").join([row, self._line(end - parts[at].cell_length, end)])

    def _part(self, step: str, label: Content) -> Content:
        is_bright = step in (self._shown[1], self._pointed_at)
        part = Content.assemble(" ", label, " ")
        part = part.stylize_before("$foreground" if is_bright else "$foreground 50%")
        return part.stylize(Style.from_meta({"step": step}))

    def _end(self, parts: Mapping[str, Content], steps: list[str], at: str) -> int:
        return sum(parts[step].cell_length for step in steps[: steps.index(at) + 1])

    def _line(self, start: int, end: int) -> Content:
        """Return the line below; the part below a name leaves out the spaces around it."""
        start, end = start + 1, end - 1
        rest = max(self.size.width - end - 1, 0)
        return Content.assemble(
            (LINE * (start - 1) + LEFT_END, "$foreground 10%"),
            (LINE * (end - start), "$block-cursor-background"),
            (RIGHT_END + LINE * rest, "$foreground 10%"),
        )

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._point_at(str(event.style.meta.get("step", "")))

    def on_leave(self) -> None:
        self._point_at("")

    def _point_at(self, step: str) -> None:
        if step != self._pointed_at:
            self._pointed_at = step
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        # The line below belongs to what stands over it.
        above = self.screen.get_style_at(event.screen_x, self.region.y)
        step = above.meta.get("step")
        if step is not None:
            self.post_message(self.Chosen(str(step)))
