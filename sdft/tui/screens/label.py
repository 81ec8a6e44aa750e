"""Captioning and tagging from the wizard: which model, then its progress line by line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Input, Log, Static
from textual.worker import get_current_worker

from sdft.tui.commands import Done, run_command
from sdft.tui.panes.working import problem_words
from sdft.tui.rows import literal
from sdft.tui.screens.ask import Question
from sdft.views.text import visible


class LabelScreen(Question[bool]):
    """Gives True where something may have been written."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False, priority=True)]

    class Line(Message):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Ended(Message):
        def __init__(self, done: Done) -> None:
            super().__init__()
            self.done = done

    def __init__(self, command: str, folders: Sequence[str], extension: str, cwd: Path) -> None:
        super().__init__()
        self._command = command
        self._folders = list(folders)
        self._extension = extension
        self._cwd = cwd
        self._has_begun = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide-box"):
            yield Static(Content(self.words(f"label.{self._command}")), classes="box-title")
            yield Static(literal("  ".join(self._folders)))
            yield Static(Content(self.words("label.model")))
            yield Input(id="label-model", compact=True)
            yield Static(Content(self.words("label.extension")))
            yield Input(value=self._extension, id="label-extension", compact=True)
            yield Static("", id="label-line")
            yield Log(id="label-log", highlight=False, max_lines=500)
            yield Button(
                self.words("label.start"), id="label-start", variant="primary", compact=True
            )
            yield Static(Content(self.words("label.keys")), classes="box-hint")

    def on_mount(self) -> None:
        self._show_line()

    def _line(self) -> list[str]:
        model = self.query_one("#label-model", Input).value.strip()
        extension = self.query_one("#label-extension", Input).value.strip() or self._extension
        named = [f"--model={model}"] if model else []
        # Options first: a folder's name may begin with a dash.
        options = [*named, f"--caption_extension={extension}"]
        return [self._command, *options, "--", *self._folders]

    def _show_line(self) -> None:
        line = " ".join(["sdft", *self._line()])
        self.query_one("#label-line", Static).update(literal(line, "$foreground-muted"))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._show_line()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._start()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self._start()

    def _start(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self.query_one("#label-start").disabled = True
            line = self._line()
            at = line.index("--")
            # --json stands before the folders, where options still count.
            self._label([*line[:at], "--json", *line[at:]])

    @work(thread=True, exclusive=True, group="label", description="caption or tag")
    def _label(self, line: Sequence[str]) -> None:
        worker = get_current_worker()
        done = run_command(
            line,
            self._cwd,
            tell=self._tell,
            is_cancelled=lambda: worker.is_cancelled,
            with_json=False,
        )
        if not worker.is_cancelled:
            self.post_message(self.Ended(done))

    def _tell(self, text: str) -> None:
        self.post_message(self.Line(text))

    def on_label_screen_line(self, event: Line) -> None:
        event.stop()
        self.query_one(Log).write_line(visible(event.text))

    def on_label_screen_ended(self, event: Ended) -> None:
        event.stop()
        done = event.done
        if done.code:
            words = self.words("label.failed", problem=problem_words(done.problems, self.words))
        else:
            written = done.result.get("written", done.result.get("labelled", "-"))
            words = self.words("label.done", written=written)
        self.query_one(Log).write_line(visible(words))
        self._has_begun = False
        self.query_one("#label-start").disabled = False

    def action_leave(self) -> None:
        """Leave; what was begun is ended, and what was written stays."""
        self.workers.cancel_node(self)
        self.dismiss(True)
