"""F1 on a field: everything that is known of the setting."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from sdft.tui.draft_values import typed_of
from sdft.tui.rows import literal
from sdft.tui.screens.ask import Question
from sdft.tui.widgets.setting_field import SettingField


class SettingHelp(Question[None]):
    """Lies over the screen until Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q,enter", "dismiss", show=False)]

    def __init__(self, field: SettingField) -> None:
        super().__init__()
        self._field = field

    def compose(self) -> ComposeResult:
        setting, stated, words = self._field.setting, self._field.stated, self.words
        rows = [
            (words("setting.wanted"), words.phrase(setting.wanted)),
            (words("setting.unit"), words.phrase(setting.unit or "")),
            (words("setting.default"), typed_of(setting.default)),
            (words("setting.choices"), ", ".join(setting.choices)),
            (words("setting.flag"), f"--{setting.flag}"),
        ]
        rows.append((words("setting.set_by"), words(f"setting.by_{stated.source}")))
        if self._field.problem is not None:
            rows.append((words("setting.problem"), str(words.problem(self._field.problem))))
        lines = [
            Content.assemble(Content.styled(f"{name}  ", "$foreground-muted"), literal(value))
            for name, value in rows
            if value
        ]
        with Vertical(classes="box"):
            yield Static(literal(setting.name), classes="box-title")
            with VerticalScroll():
                help_line = literal(words.hint(setting.name, setting.help))
                yield Static(Content("\n").join([help_line, Content(""), *lines]))
            yield Static(Content(words("common.close_hint")), classes="box-hint")
