"""What the panes of the wizard have in common: fields of settings, and the draft they show."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.containers import Vertical
from textual.message import Message
from textual.widget import Widget

from sdft.tui.draft import Draft
from sdft.tui.draft_values import Checked, Stated, dataset_names, num_datasets, stated
from sdft.tui.widgets.dataset_choice import DatasetChoice
from sdft.tui.widgets.ground import Ground
from sdft.tui.widgets.setting_field import SettingField

if TYPE_CHECKING:
    from sdft.language import Words
    from sdft.tui.screens.wizard import WizardScreen
    from sdft.tui.shell import Shell

Change = Callable[[Draft], Draft]
Make = Callable[[], Sequence[Widget]]

SLICE = 5
"""Fields that are made in one go: about 20 ms."""


class Edit(Message):
    """A pane asks for a change of the draft."""

    def __init__(self, what: str, change: Change) -> None:
        super().__init__()
        self.what = what
        self.change = change


class Pane(Vertical, Ground):
    """One part of the wizard."""

    IN_PALETTE: ClassVar = True
    """Its keys stand in the command palette."""
    HAS_DATASETS: ClassVar = False
    """Its settings may differ from dataset to dataset of one file."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._is_begun = False
        self.is_filled = asyncio.Event()
        """Once all fields are made, a moment after the pane came up first."""
        self.is_whole = asyncio.Event()
        """Once every part is in sight; what is not cannot take the keys."""

    @property
    def words(self) -> Words:
        return cast("Shell", self.app).words

    @property
    def wizard(self) -> WizardScreen:
        return cast("WizardScreen", self.screen)

    @property
    def cwd(self) -> Path:
        return self.wizard.cwd

    def show(self, draft: Draft, checked: Checked) -> None:
        """Draw the draft. Called after each edit and when the pane comes up."""
        if self.HAS_DATASETS and num_datasets(draft) > 1:
            self._show_datasets(dataset_names(draft))
        self.show_fields(self.query(SettingField), draft, checked)

    def _show_datasets(self, names: Sequence[str]) -> None:
        for choice in self.query(DatasetChoice):
            choice.show(names, self.wizard.dataset)
            return
        self.mount(DatasetChoice(names, self.wizard.dataset), after=0)

    def stated(self, name: str, draft: Draft) -> Stated:
        """Return what a draft says of a setting in the chosen dataset and folder."""
        wizard = self.wizard
        return stated(draft, name, subset=wizard.subset, dataset=wizard.dataset)

    def show_fields(self, fields: Iterable[SettingField], draft: Draft, checked: Checked) -> None:
        for field in fields:
            name = field.setting.name
            place = self.stated(name, draft)
            field.show(place, checked.problem_of(name, self.wizard.dataset))

    def fields(self, names: Iterable[str]) -> list[SettingField]:
        """Make the fields of settings, as they stand in the draft."""
        wizard = self.wizard
        return [
            SettingField(
                name,
                self.stated(name, wizard.draft),
                wizard.checked.problem_of(name, wizard.dataset),
                self.words,
            )
            for name in names
        ]

    def later(self) -> tuple[str, Sequence[Make]]:
        """Return the place of what is made after the first paint, and each slice of it."""
        return "", ()

    def later_fields(self, names: Sequence[str]) -> list[Make]:
        """Return slices of the fields that do not come up at once."""
        rest = range(SLICE, len(names), SLICE)
        return [partial(self.fields, names[first : first + SLICE]) for first in rest]

    def come_up(self) -> None:
        """Draw the pane part by part; called after it was given the place of another."""
        self.run_worker(self._show_parts(), group="parts", exclusive=True)
        if not self._is_begun:
            self._is_begun = True
            self.run_worker(self._make_later(), group="later")

    async def _show_parts(self) -> None:
        for part in self.query(".second"):
            await self.wait_for_refresh()
            # Not by a class: the styles of every widget would be worked out anew.
            part.styles.clear_rule("display")
            part.refresh(layout=True)
        await self.wait_for_refresh()
        self.is_whole.set()

    async def _make_later(self) -> None:
        place, slices = self.later()
        if place:
            await self.mount_in_slices(self.query_one(place), slices)
        self.is_filled.set()

    def go_down(self) -> None:
        self.is_whole.clear()
        for part in self.query(".second"):
            part.display = False

    async def mount_in_slices(self, place: Widget, slices: Iterable[Make]) -> None:
        """Make widgets a few at a time, so that keys get in between. Call it from a worker."""
        for make in slices:
            await self.wait_for_refresh()
            if not place.is_attached:
                return
            await place.mount_all(make())

    async def open_field(self, name: str) -> None:
        """Bring up a field that is not made yet, or is folded away."""
        await self.is_filled.wait()
        await self.is_whole.wait()

    def first_focus(self) -> None:
        """Give the keys to the part that a person wants first."""
        for field in self.query(SettingField):
            field.focus_editor()
            return
