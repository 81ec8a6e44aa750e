"""The keys that steer a run: each asks once, sends a command, and shows the run's answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.worker import get_current_worker

from sdft.control import Answer, is_at_work, send_command, wait_for_answer
from sdft.errors import SdftError
from sdft.rundir import RunDir
from sdft.tui.following import Seen
from sdft.tui.screens.ask import AskRate, AskYes
from sdft.tui.shell import Worded
from sdft.views.run_state import PAUSED, RUNNING
from sdft.views.text import visible

ANSWER_TIMEOUT_S = 600.0
"""Longer than any step or save; while it waits the screen stays as it is."""

WAIT_PIECE_S = 0.3
SENDER = "dashboard"


class Steering(Worded):
    """A screen that knows one run and steers it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "key.pause"),
        Binding("p", "resume", "key.resume"),
        Binding("s", "ask('sample')", "key.sample"),
        Binding("w", "ask('save')", "key.save"),
        Binding("x", "ask('stop')", "key.stop"),
        Binding("l", "rate", "key.rate"),
        Binding("y", "copy_fix", "key.copy_fix", show=False),
    ]

    seen: reactive[Seen | None] = reactive(None, always_update=True)
    asked: reactive[str] = reactive("")
    """The latest command and its answer, in words."""

    class Answered(Message):
        """A run answered, or did not."""

        def __init__(self, command: str, answer: Answer | None, problem: str = "") -> None:
            super().__init__()
            self.command = command
            self.answer = answer
            self.problem = problem

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Show only the keys that the run can obey now."""
        state = self.seen.state.name if self.seen is not None else ""
        if action == "resume":
            return state == PAUSED
        if action == "pause":
            return state != PAUSED
        if action == "copy_fix":
            return self.seen is not None and bool(self.seen.state.fix)
        return True

    def action_pause(self) -> None:
        self.action_ask("pause")

    def action_resume(self) -> None:
        self.action_ask("resume")

    def action_ask(self, command: str) -> None:
        """Ask whether it is meant, then send it."""
        if self._can_steer():
            self.app.push_screen(
                AskYes(self.words(f"ask.{command}")),
                lambda yes: self.send(command) if yes else None,
            )

    def action_rate(self) -> None:
        if self._can_steer():
            assert self.seen is not None
            step = self.seen.snapshot.summary.last_step
            self.app.push_screen(AskRate(step.lr if step else None), self._send_rate)

    def action_copy_fix(self) -> None:
        if self.seen is not None:
            self.app.copy_to_clipboard(self.seen.state.fix)
            self.notify(visible(self.seen.state.fix), markup=False)

    def send(self, command: str, **arguments: Any) -> None:
        """Send a command without asking the person."""
        assert self.seen is not None
        self.asked = self.words("asked.waiting", command=command)
        self._send(command, arguments)

    def on_steering_answered(self, event: Answered) -> None:
        answer = event.answer
        if answer is None:
            words = self.words("asked.no_answer", command=event.command)
            words = f"{event.command}: {event.problem}" if event.problem else words
        else:
            name = "asked.done" if answer.ok else "asked.refused"
            words = self.words(name, command=event.command, answer=answer.message)
        self.asked = visible(words)
        refused = answer is None or not answer.ok
        self.notify(visible(words), severity="warning" if refused else "information", markup=False)

    def _can_steer(self) -> bool:
        if self.seen is not None and self.seen.state.name in (RUNNING, PAUSED):
            return True
        self.notify(self.words("asked.not_running"), severity="warning")
        return False

    def _send_rate(self, rate: float | None) -> None:
        if rate is not None:
            self.send("set", learning_rate=rate)

    @work(thread=True, group="steering", description="ask the run")
    def _send(self, command: str, arguments: dict[str, Any]) -> None:
        assert self.seen is not None
        run, worker = self.seen.run, get_current_worker()
        try:
            sent = send_command(run, command, arguments, sender=SENDER)
            answer = _answer(run, sent.id, lambda: worker.is_cancelled)
        except SdftError as error:
            self.post_message(self.Answered(command, None, str(error)))
            return
        self.post_message(self.Answered(command, answer))


def _answer(run: RunDir, command_id: str, is_cancelled: Callable[[], bool]) -> Answer | None:
    """Wait in short pieces, so that leaving the screen never has to wait for a run."""
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while not is_cancelled() and time.monotonic() < deadline_s:
        answer = wait_for_answer(run, command_id, timeout_s=WAIT_PIECE_S)
        if answer is not None or not is_at_work(run):
            return answer
    return None
