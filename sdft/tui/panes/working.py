"""A pane that asks a command about the draft, in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textual import work
from textual.message import Message
from textual.worker import get_current_worker

from sdft.config.write import resolved_toml
from sdft.errors import EnvironmentFault, Problem
from sdft.files import make_folder, write_text
from sdft.language import Words
from sdft.tui.commands import Done, run_command
from sdft.tui.draft import Draft
from sdft.tui.draft_values import Checked
from sdft.tui.panes.pane import Pane


class WorkingPane(Pane):
    """Runs `COMMAND` on the draft whenever the pane comes up with another draft."""

    class Came(Message):
        """A command has ended."""

        def __init__(self, done: Done, asked: str) -> None:
            super().__init__()
            self.done = done
            self.asked = asked

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.asked = ""
        """The settings that the command was asked about last."""
        self.done: Done | None = None

    def command(self, scratch: Path) -> Sequence[str]:
        """Return the words behind `sdft`; `scratch` is a folder of the wizard's own."""
        raise NotImplementedError

    def came(self, done: Done) -> None:
        """Draw what the command said."""
        raise NotImplementedError

    def waits(self, *, blocked: bool) -> None:
        """Show that an answer is on its way, or that settings are wrong, so none will come."""
        raise NotImplementedError

    def show(self, draft: Draft, checked: Checked) -> None:
        super().show(draft, checked)
        if not self.display:
            return
        if checked.config is None:
            self.asked = ""
            self.waits(blocked=True)
            return
        settings = resolved_toml(checked.config)
        if settings != self.asked:
            self.asked = settings
            self.waits(blocked=False)
            self.ask(settings)

    def again(self) -> None:
        """Ask once more, since files other than the settings have changed."""
        self.asked = ""
        self.show(self.wizard.draft, self.wizard.checked)

    @work(thread=True, exclusive=True, group="ask", description="ask a command")
    def ask(self, settings: str) -> None:
        worker = get_current_worker()
        scratch = self.wizard.keeping.scratch(self.wizard.draft)
        try:
            make_folder(scratch)
            write_text(scratch / f"{self.id}.toml", settings)
        except EnvironmentFault as error:
            done = Done(code=error.exit_code, result={}, problems=error.problems)
        else:
            words = self.command(scratch)
            done = run_command(words, self.cwd, is_cancelled=lambda: worker.is_cancelled)
        if not worker.is_cancelled:
            self.post_message(self.Came(done, settings))

    def on_working_pane_came(self, event: Came) -> None:
        event.stop()
        if event.asked == self.asked:
            self.done = event.done
            self.came(event.done)


def problem_words(problems: Sequence[Problem], words: Words) -> str:
    return "\n".join(str(words.problem(problem)) for problem in problems)


def number(result: Any, name: str) -> int:
    """Return a whole number of a result; 0 where it has none."""
    value = result.get(name)
    return value if isinstance(value, int) else 0
