"""The wizard: six steps from a model to a run, one draft behind them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import ContentSwitcher, Select, Static
from textual.worker import get_current_worker

from sdft.config.document import shown
from sdft.config.training import TrainingSettings
from sdft.errors import Problem
from sdft.tui.breakpoints import HEIGHTS, WIDTHS
from sdft.tui.draft import Draft, History
from sdft.tui.draft_values import Checked, check, stated, typed_of, with_setting
from sdft.tui.keeping import Keeping
from sdft.tui.panes.fields import step_of
from sdft.tui.panes.pane import Edit, Pane
from sdft.tui.rows import literal
from sdft.tui.screens.ask import AskYes
from sdft.tui.screens.jump import JumpScreen
from sdft.tui.screens.launching import Launching
from sdft.tui.screens.recent import AskRecent
from sdft.tui.widgets.key_row import KeyRow
from sdft.tui.widgets.setting_field import SettingField
from sdft.tui.widgets.step_row import StepRow

PANES = {
    "model": "ModelPane",
    "images": "ImagesPane",
    "words": "WordsPane",
    "buckets": "BucketsPane",
    "training": "TrainingPane",
    "review": "ReviewPane",
}
STEPS = tuple(PANES)

IMPORT_AFTER_S = 0.5
KEEP_AFTER_S = 0.3
"""Unsaved changes are written down when nothing more was typed for so long."""


def pane_class(step: str) -> Callable[[], Pane]:
    """Import a step's pane: all of them at the start would keep the first one waiting."""
    found: Callable[[], Pane] = getattr(import_module(f"sdft.tui.panes.{step}"), PANES[step])
    return found


class WizardScreen(Launching):
    """Holds the history of the draft; panes show it and post edits."""

    CSS_PATH: ClassVar = ["../styles/wizard.tcss"]
    AUTO_FOCUS: ClassVar = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "along(-1)", "key.step_back", priority=True),
        Binding("f3", "along(1)", "key.step_on", priority=True),
        Binding("ctrl+o", "jump", "key.jump", priority=True),
        Binding("ctrl+z", "undo", "key.undo", priority=True),
        Binding("ctrl+y", "redo", "key.redo", show=False, priority=True),
        Binding("ctrl+s", "save", "key.save_files"),
        Binding("ctrl+r", "recent", "key.recent", show=False),
    ]

    class WasChecked(Message):
        def __init__(self, draft: Draft, checked: Checked) -> None:
            super().__init__()
            self.draft = draft
            self.checked = checked

    def __init__(self, draft: Draft, cwd: Path, *, keeping: Keeping, graphics: str) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = list(WIDTHS)
        self.VERTICAL_BREAKPOINTS = list(HEIGHTS)
        self.history = History(draft)
        self.checked = Checked(config=None, problems=(), notices=(), fields=(), datasets=())
        self.is_checked = False
        self.cwd = cwd
        self.keeping = keeping
        self.graphics = graphics
        self.dataset = 0
        """Which of the file's datasets the fields show."""
        self.subset = 0
        """Which folder's own settings the fields show."""
        self.batches: tuple[int, ...] = ()
        """Of each bucket in an epoch, as they were last planned; none while it is not known."""
        self.step = STEPS[0]
        self._hinted: SettingField | None = None
        """The field that the help at the foot is of."""

    model_problem: reactive[str] = reactive("", init=False)
    """Why the model's file cannot be trained on; the settings' checks do not open it."""

    def watch_model_problem(self) -> None:
        self._check(self.draft)

    @property
    def draft(self) -> Draft:
        return self.history.now

    def compose(self) -> ComposeResult:
        yield Static("", id="wizard-title")
        yield StepRow(self._tabs(), self.step, id="steps")
        yield ContentSwitcher(id="panes")
        yield Static("", id="hint")
        yield KeyRow()

    async def on_mount(self) -> None:
        self._draw_title()
        await self.go_to(STEPS[0])
        self._check(self.draft)
        self._import_others()
        kept = self.keeping.kept(self.draft)
        if kept is not None:
            found = kept

            def answer(yes: bool | None) -> None:
                if yes:
                    self.edit(found, "draft")
                else:
                    self.keeping.forget(self.draft)

            self.app.push_screen(AskYes(self.words("wizard.kept")), answer)

    @work(thread=True, group="import", description="import the other steps")
    def _import_others(self) -> None:
        # The first screen is painted before.
        time.sleep(IMPORT_AFTER_S)
        for step in STEPS:
            pane_class(step)
        import_module("sdft.tui.screens.run")

    # Steps.

    async def go_to(self, step: str) -> None:
        """Bring up a step; its pane is made at the first time."""
        panes = self.query_one("#panes", ContentSwitcher)
        name = f"step-{step}"
        pane = self._pane_of(step)
        if pane is None:
            # Somebody may be here before all is imported.
            pane = (await asyncio.to_thread(pane_class, step))()
            pane.display = False
            if not panes.is_attached:
                return
            await panes.mount(pane)
        pane.go_down()
        self.step = step
        panes.current = name
        self.query_one(StepRow).show(self._tabs(), step)
        self._show()
        pane.first_focus()
        pane.come_up()

    def _pane_of(self, step: str) -> Pane | None:
        """Return the pane of a step that was looked at before."""
        panes = (one for one in self.query_one("#panes").children if isinstance(one, Pane))
        return next((pane for pane in panes if pane.id == f"step-{step}"), None)

    @property
    def pane(self) -> Pane:
        pane = self._pane_of(self.step)
        assert pane is not None
        return pane

    async def on_step_row_chosen(self, event: StepRow.Chosen) -> None:
        event.stop()
        if event.step != self.step:
            await self.go_to(event.step)

    async def action_along(self, by: int) -> None:
        at = STEPS.index(self.step) + by
        if 0 <= at < len(STEPS):
            await self.go_to(STEPS[at])

    @on(Select.Changed, "#dataset")
    def _dataset_chosen(self, event: Select.Changed) -> None:
        event.stop()
        if isinstance(event.value, int) and event.value != self.dataset:
            self._choose_dataset(event.value)

    def _choose_dataset(self, dataset: int) -> None:
        self.settle()
        self.dataset, self.subset = dataset, 0
        self._show()

    def go_to_field(self, name: str, dataset: int | None = None) -> None:
        if dataset is not None and dataset != self.dataset:
            self._choose_dataset(dataset)
        self.run_worker(self._to_field(name), exclusive=True, group="jump")

    async def _to_field(self, name: str) -> None:
        await self.go_to(step_of(name))
        pane = self.pane
        await pane.open_field(name)
        for field in pane.query(SettingField):
            if field.setting.name == name and field.display:
                field.focus_editor()

    def action_jump(self) -> None:
        """Put a letter on every part that takes the keys."""
        targets = [
            widget
            for widget in self.focus_chain
            if widget.region.area and self.region.contains_region(widget.region)
        ]

        def jump(widget: object) -> None:
            if widget in targets:
                targets[targets.index(widget)].focus()

        self.app.push_screen(JumpScreen(targets), jump)

    # The draft.

    def edit(self, draft: Draft, what: str, *, joins: bool = False) -> None:
        before = self.history
        self.history = before.edited(draft, what, joins=joins)
        if self.history is not before:
            self._changed(shows=not joins)

    def _changed(self, *, shows: bool = True) -> None:
        self._draw_title()
        if shows:
            self._show()
        self._check(self.draft)

    def on_setting_field_edited(self, event: SettingField.Edited) -> None:
        event.stop()
        field = event.field
        # It may have been taken in before, or emptied since.
        if field.has_news and not (event.is_typing and field.is_emptied):
            self._take_in(field, is_typing=event.is_typing)
            if not event.is_typing:
                # What was emptied may have a value still, from a preset.
                self._show()

    def _take_in(self, field: SettingField, *, is_typing: bool) -> None:
        name, typed = field.setting.name, field.text
        place = {"subset": self.subset, "dataset": self.dataset}
        draft = with_setting(self.draft, name, typed, **place)
        field.took(typed, stated(draft, name, **place))
        self.edit(draft, name, joins=is_typing)

    def on_edit(self, event: Edit) -> None:
        event.stop()
        self.edit(event.change(self.draft), event.what)

    def settle(self) -> None:
        """Take in what the fields have not told yet, such as the last key before a save."""
        for field in self.query(SettingField):
            if field.has_news:
                self._take_in(field, is_typing=not field.is_emptied)

    def action_undo(self) -> None:
        self.settle()
        self._back_or_forth(*self.history.undone(), name="wizard.undone")

    def action_redo(self) -> None:
        self.settle()
        self._back_or_forth(*self.history.redone(), name="wizard.redone")

    def _back_or_forth(self, history: History, what: str, *, name: str) -> None:
        self.history = history
        if what:
            self.notify(self.words(name, what=what), timeout=2, markup=False)
            self._changed()

    @work(thread=True, exclusive=True, group="check", description="check the draft")
    def _check(self, draft: Draft) -> None:
        worker = get_current_worker()
        checked = check(draft, self.cwd)
        if worker.is_cancelled:
            return
        self.post_message(self.WasChecked(draft, checked))
        time.sleep(KEEP_AFTER_S)
        if not worker.is_cancelled:
            self.keeping.keep(draft)

    def on_wizard_screen_was_checked(self, event: WasChecked) -> None:
        event.stop()
        if event.draft is not self.draft:
            return
        self.checked = self._with_model_problem(event.checked)
        self.is_checked = True
        self.query_one(StepRow).show(self._tabs(), self.step)
        self._show()

    def _with_model_problem(self, checked: Checked) -> Checked:
        name = "pretrained_model_name_or_path"
        if not self.model_problem or name in checked.fields:
            return checked
        problem = Problem(self.model_problem.split("\n")[0], name)
        return replace(
            checked,
            problems=(problem, *checked.problems),
            fields=(name, *checked.fields),
            datasets=(None, *checked.datasets),
        )

    def _show(self) -> None:
        """Draw the draft in the pane that is up."""
        pane = self._pane_of(self.step)
        if pane is not None and pane.is_mounted:
            pane.show(self.draft, self.checked)

    # Rows around the panes.

    def _tabs(self) -> dict[str, Content]:
        return {step: self._tab(step) for step in STEPS}

    def _tab(self, step: str) -> Content:
        words = f"{STEPS.index(step) + 1} {self.words('step.' + step)}"
        wrong = any(step_of(field) == step for field in self.checked.fields if field)
        return Content.assemble(words, Content.styled(" !", "bold $error") if wrong else "")

    def _draw_title(self) -> None:
        draft = self.draft
        names = "  ".join(shown(file.path, self.cwd) for file in draft.files)
        mark = self.words("wizard.unsaved") if draft.is_changed else self.words("wizard.saved")
        title = Content.assemble(
            Content.styled("sdft wizard", "bold"),
            "   ",
            literal(names, "$foreground-muted"),
            "   ",
            Content.styled(mark, "$warning" if draft.is_changed else "$success"),
        )
        self.query_one("#wizard-title", Static).update(title, layout=False)

    def on_setting_field_entered(self, event: SettingField.Entered) -> None:
        event.stop()
        self.history = self.history.settled()
        hint = self.query_one("#hint", Static)
        if not event.has_keys:
            # A field on another step may say that it was left after the new one was entered.
            if event.field is self._hinted:
                hint.update("", layout=False)
            # What was emptied has another value still, from a preset or by default.
            self.pane.show_fields([event.field], self.draft, self.checked)
            return
        self._hinted = event.field
        setting = event.field.setting
        facts = [self.words.phrase(setting.range)] if setting.range else []
        if setting.default is not None:
            facts.append(self.words("wizard.default", value=typed_of(setting.default)))
        hint.update(
            Content.assemble(
                literal(self.words.hint(setting.name, setting.help)),
                literal(f"  ({'; '.join(facts)})" if facts else "", "$foreground-muted"),
            ),
            layout=False,
        )

    # Files and runs.

    def was_saved(self, draft: Draft) -> None:
        self.history = self.history.on_disk(draft)
        self._draw_title()
        self._show()
        self._check(self.draft)

    def total_steps(self, settings: TrainingSettings) -> int:
        """Return the length of the run; 0 while the number of batches is not known."""
        if settings.max_train_epochs is None:
            return settings.max_train_steps
        # A step has one resolution.
        accumulated = settings.gradient_accumulation_steps
        return settings.max_train_epochs * sum(ceil(one / accumulated) for one in self.batches)

    def action_recent(self) -> None:
        paths = self.keeping.recent()
        if not paths:
            self.notify(self.words("wizard.no_recent"), markup=False)
            return
        self.app.push_screen(AskRecent(paths), self._reopen)

    def _reopen(self, path: Path | None) -> None:
        if path is not None:
            self.keeping.keep(self.draft)
            self.app.open(path)  # type: ignore[attr-defined]

    def keep_now(self) -> None:
        """Write down what is not saved, on the way out."""
        self.settle()
        self.keeping.keep(self.draft)
