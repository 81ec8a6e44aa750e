"""Saving the draft, and starting its training: what touches the disk does so in threads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from textual import work
from textual.message import Message

from sdft.config.load import Config
from sdft.errors import SdftError
from sdft.tui.draft import Draft
from sdft.tui.draft_values import Checked
from sdft.tui.keeping import Keeping
from sdft.tui.screens.ask_run import AskRun
from sdft.tui.shell import Worded

if TYPE_CHECKING:
    from sdft.tui.starting import Started


class Launching(Worded):
    """A screen with a draft that can be saved and started."""

    checked: Checked
    keeping: Keeping
    graphics: str
    cwd: Path
    is_saving = False

    class Saved(Message):
        """The files were written, or could not be."""

        def __init__(self, draft: Draft | None, problem: str, state: str, *, starts: bool) -> None:
            super().__init__()
            self.draft = draft
            self.problem = problem
            self.state = state
            """Of a run that lies where this one would go; empty where there is none."""
            self.starts = starts

    class WasStarted(Message):
        def __init__(self, started: Started | None, problem: str) -> None:
            super().__init__()
            self.started = started
            self.problem = problem

    @property
    def draft(self) -> Draft:
        raise NotImplementedError

    def was_saved(self, draft: Draft) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        raise NotImplementedError

    def action_save(self) -> None:
        self.settle()
        self._save(self.draft, None)

    def start(self) -> None:
        """Save and start, unless something is wrong."""
        if self.checked.problems or self.checked.config is None:
            self.notify(self.words("wizard.not_yet"), severity="warning", markup=False)
            return
        self._save(self.draft, self.checked.config)

    @work(thread=True, exclusive=True, group="save", description="save the files")
    def _save(self, draft: Draft, config: Config | None) -> None:
        # Brings psutil, which the first screen need not wait for.
        from sdft.tui.starting import run_of

        state = ""
        try:
            saved = draft.saved()
            if config is not None and (status := run_of(config).read_status()) is not None:
                state = status.state
        except (SdftError, OSError) as error:
            self.post_message(self.Saved(None, str(error), "", starts=False))
            return
        self.keeping.add_recent(saved)
        self.keeping.forget(saved)
        self.post_message(self.Saved(saved, "", state, starts=config is not None))

    def on_launching_saved(self, event: Saved) -> None:
        event.stop()
        if event.draft is None:
            self.notify(event.problem, severity="error", timeout=15, markup=False)
            return
        self.is_saving = True
        self.was_saved(event.draft)
        self.is_saving = False
        if not event.starts:
            self.notify(self.words("wizard.was_saved"), timeout=3, markup=False)
        elif event.state:
            question = AskRun(is_finished=event.state == "finished")
            self.app.push_screen(question, self._with_flags)
        else:
            self._with_flags(())

    def _with_flags(self, flags: tuple[str, ...] | None) -> None:
        config = self.checked.config
        if flags is not None and config is not None:
            self._start(self.draft, config, flags)

    @work(thread=True, exclusive=True, group="start", description="start the training")
    def _start(self, draft: Draft, config: Config, flags: tuple[str, ...]) -> None:
        from sdft.tui.starting import start_training

        try:
            started = start_training(draft, config, self.cwd, flags)
        except (SdftError, OSError) as error:
            self.post_message(self.WasStarted(None, str(error)))
            return
        self.post_message(self.WasStarted(started, ""))

    def on_launching_was_started(self, event: WasStarted) -> None:
        event.stop()
        if event.started is None:
            self.notify(event.problem, severity="error", timeout=15, markup=False)
        else:
            from sdft.tui.screens.run import RunScreen

            self.app.push_screen(RunScreen(event.started, graphics=self.graphics))
