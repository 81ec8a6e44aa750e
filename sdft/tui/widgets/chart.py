"""A chart that is drawn aside and shown when it is ready."""

from __future__ import annotations

from rich.text import Text
from textual import work
from textual.app import RenderResult
from textual.events import Resize
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.worker import get_current_worker

from sdft.tui.figure import ChartPlan, draw


class Chart(Widget, can_focus=True):
    """Assign `plan`; the drawing follows. Enter shows this chart alone."""

    ALLOW_MAXIMIZE = True

    plan: reactive[ChartPlan | None] = reactive(None, layout=False, repaint=False)
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

    def watch_plan(self) -> None:
        self._redraw()

    def on_resize(self, event: Resize) -> None:
        self._redraw()

    def on_chart_drawn(self, event: Drawn) -> None:
        event.stop()
        self.drawing = event.drawing

    def _redraw(self) -> None:
        plan = self.plan
        if plan is None or not self.size.area:
            return
        if any(line.points for line in plan.lines):
            self._draw(plan, self.content_size.width, self.content_size.height)
        else:
            self.drawing = Text(f"{plan.title}: {self._empty}", style="dim")

    @work(thread=True, exclusive=True, group="draw")
    def _draw(self, plan: ChartPlan, width: int, height: int) -> None:
        drawing = draw(plan, width, height)
        # A newer plan is on its way; its drawing must not be overtaken by this one.
        if not get_current_worker().is_cancelled:
            self.post_message(self.Drawn(drawing))
