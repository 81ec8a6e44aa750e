"""The dashboard on a run that the wizard has started."""

from __future__ import annotations

from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.worker import get_current_worker

from sdft.tui.screens.watch import WatchScreen
from sdft.tui.starting import Started, last_lines
from sdft.views.text import visible

LOOK_EVERY_S = 0.3
SHOWN_FOR_S = 60.0


class RunScreen(WatchScreen):
    """As WatchScreen; tells when the process ends before it wrote why. Esc goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "key.back_to_wizard")]

    class Died(Message):
        def __init__(self, code: int) -> None:
            super().__init__()
            self.code = code

    def __init__(self, started: Started, *, graphics: str) -> None:
        super().__init__(started.run, graphics=graphics)
        self._started = started

    def on_mount(self) -> None:
        super().on_mount()
        self.notify(self.words("run.started", line=self._started.line), timeout=10, markup=False)
        self._wait()

    @work(thread=True, group="process", description="wait for the training")
    def _wait(self) -> None:
        import subprocess

        worker = get_current_worker()
        process = self._started.process
        while not worker.is_cancelled:
            try:
                code = process.wait(LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                continue
            if code:
                self.post_message(self.Died(code))
            return

    def on_run_screen_died(self, event: Died) -> None:
        event.stop()
        words = self.words(
            "run.process_ended", code=event.code, lines=visible(last_lines(self._started.log))
        )
        self.notify(words, severity="error", timeout=SHOWN_FOR_S, markup=False)

    def action_back(self) -> None:
        if self.app.screen is self:
            self.app.pop_screen()
