"""A chart that is drawn aside and shown when it is ready."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual import work
from textual.app import RenderResult
from textual.events import Resize
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.worker import get_current_worker

from sdft.tui.figure import ChartPlan, draw

Source = Callable[[], ChartPlan]
"""Says what to draw; called in a thread, because smoothing thousands of points takes its time."""


class Chart(Widget, can_focus=True):
    """Assign `source`; the drawing follows. Enter shows this chart alone."""

    ALLOW_MAXIMIZE = True

    source: reactive[Source | None] = reactive(None, repaint=False, always_update=True)
    drawing: reactive[Text | str] = reactive("")

    class Drawn(Message):
        """A drawing is ready."""

        def __init__(self, drawing: Text) -> None:
            super().__init__()
            self.drawing = drawing

    def __init__(self, *, empty: str, id: str | None = None, classes: str = "") -> None:
        super().__init__(id=id, classes=f"chart {classes}")
        self._empty = empty

    def render(self) -> RenderResult:
        return self.drawing

    def watch_source(self) -> None:
        self._redraw()

    def on_resize(self, event: Resize) -> None:
        self._redraw()

    def on_chart_drawn(self, event: Drawn) -> None:
        event.stop()
        self.drawing = event.drawing

    def _redraw(self) -> None:
        if self.source is not None and self.size.area:
            self._draw(self.source, self.content_size.width, self.content_size.height)

    # Without a description Textual would write all arguments into one, at every call.
    @work(thread=True, exclusive=True, group="draw", description="draw a chart")
    def _draw(self, source: Source, width: int, height: int) -> None:
        plan = source()
        if any(line.points for line in plan.lines):
            drawing = draw(plan, width, height)
        else:
            drawing = Text(f"{plan.title}: {self._empty}", style="dim")
        # A newer source is on its way; its drawing must not be overtaken by this one.
        if not get_current_worker().is_cancelled:
            self.post_message(self.Drawn(drawing))
