"""What the panes of the wizard have in common: fields of settings, and the draft they show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.containers import Vertical
from textual.message import Message

from sdft.tui.draft import Draft
from sdft.tui.draft_values import Checked, stated
from sdft.tui.widgets.setting_field import SettingField

if TYPE_CHECKING:
    from sdft.language import Words
    from sdft.tui.screens.wizard import WizardScreen
    from sdft.tui.shell import Shell

Change = Callable[[Draft], Draft]


class Edit(Message):
    """A pane asks for a change of the draft."""

    def __init__(self, what: str, change: Change) -> None:
        super().__init__()
        self.what = what
        self.change = change


class Pane(Vertical):
    """One part of the wizard."""

    IN_PALETTE: ClassVar = True
    """Its keys stand in the command palette."""

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
        self.show_fields(self.query(SettingField), draft, checked)

    def show_fields(self, fields: Iterable[SettingField], draft: Draft, checked: Checked) -> None:
        for field in fields:
            name = field.setting.name
            place = stated(draft, name, subset=self.wizard.subset)
            field.show(place, checked.problem_of(name))

    async def open_field(self, name: str) -> None:
        """Bring up a field that is folded away."""

    def first_focus(self) -> None:
        """Give the keys to the part that a person wants first."""
        for field in self.query(SettingField):
            field.focus_editor()
            return
