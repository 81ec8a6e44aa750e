"""One setting as a field, drawn from its declaration: a check box, a choice, or a line to type."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import DescendantBlur, DescendantFocus
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Checkbox, Input, Select, Static

from sdft.config.settings import Setting
from sdft.errors import Problem
from sdft.tui.draft_values import Stated, declared, typed_of
from sdft.tui.rows import literal

SIGNS = {"dataset": " ", "config": " ", "preset": "p", "default": "·"}
"""Before a name: whether the files state it, the preset does, or nothing does."""


class Tick(Checkbox):
    """A check box that shows its state without colours."""

    BUTTON_LEFT = "["
    BUTTON_RIGHT = "]"

    @property
    def _button(self) -> Content:
        style = self.get_visual_style("toggle--button")
        return Content.styled(f"[{'x' if self.value else ' '}]", style)


class SettingField(Vertical):
    """Shows the value that counts; typing posts `Edited`. Knows nothing of files."""

    class Edited(Message):
        """The person typed or chose a value."""

        def __init__(self, name: str, typed: str, *, is_typing: bool) -> None:
            super().__init__()
            self.name = name
            self.typed = typed
            self.is_typing = is_typing

    class Entered(Message):
        """The field took or lost the keys."""

        def __init__(self, field: SettingField | None) -> None:
            super().__init__()
            self.field = field

    def __init__(self, name: str) -> None:
        super().__init__(id=f"setting-{name}", classes="setting")
        self.setting: Setting = declared(name)
        self.stated: Stated | None = None
        self.problem: Problem | None = None
        self._next: tuple[Stated, Problem | None] | None = None

    @property
    def has_choice(self) -> bool:
        return bool(self.setting.choices) and not self.setting.open_choices

    @property
    def choices(self) -> tuple[str, ...]:
        """Of a setting that is true, false or found out: both words."""
        return self.setting.choices or ("true", "false") * self.setting.is_flag

    def compose(self) -> ComposeResult:
        with Horizontal(classes="setting-row"):
            yield Static(self._name_row(), classes="setting-name")
            yield self._editor()
        yield Static("", classes="setting-problem")

    def _editor(self) -> Widget:
        setting = self.setting
        if setting.is_flag and setting.default is not None:
            return Tick("", compact=True, classes="editor")
        if (self.has_choice or setting.is_flag) and not setting.is_list:
            rows = [(choice, choice) for choice in self.choices]
            is_open = setting.default is None
            return Select(rows, prompt="-", allow_blank=is_open, compact=True, classes="editor")
        known = SuggestFromList(setting.choices, case_sensitive=False) if setting.choices else None
        return Input(compact=True, suggester=known, select_on_focus=False, classes="editor")

    def _name_row(self) -> Content:
        source = self.stated.source if self.stated else "default"
        style = "" if source in ("dataset", "config") else "$foreground-muted"
        unit = f" {self.setting.unit}" if self.setting.unit else ""
        return Content.assemble(
            Content.styled(f"{SIGNS[source]} ", "$foreground-muted"),
            Content.styled(self.setting.name, style),
            Content.styled(unit, "$foreground-muted"),
        )

    def show(self, stated: Stated, problem: Problem | None) -> None:
        """Draw a value and what is wrong with it. What is being typed is left alone."""
        self._next = (stated, problem)
        if not self.query(".editor"):
            return
        typed = typed_of(stated.value)
        is_same_source = self.stated is not None and self.stated.source == stated.source
        self.stated = stated
        if not is_same_source:
            self.query_one(".setting-name", Static).update(self._name_row())
        if problem != self.problem:
            self.problem = problem
            row = self.query_one(".setting-problem", Static)
            words = f"{problem.what}. {problem.fix}".rstrip(". ") if problem else ""
            row.update(literal(words))
            row.display = bool(words)
        editor = self.query_one(".editor")
        if isinstance(editor, Input) and editor.has_focus and self._means(editor.value, typed):
            return
        # The value that is put in here must not come back as an edit.
        with self.prevent(Input.Changed, Select.Changed, Checkbox.Changed):
            if isinstance(editor, Checkbox):
                editor.value = stated.value is True
            elif isinstance(editor, Select):
                if typed and typed not in self.choices:
                    # What a file says is shown, though it is none of the choices.
                    editor.set_options([(one, one) for one in (*self.choices, typed)])
                editor.value = typed or Select.NULL
            elif isinstance(editor, Input) and editor.value != typed:
                editor.value = typed

    def on_mount(self) -> None:
        # Told what to show before there was anything to show it in.
        if self._next is not None:
            self.show(*self._next)

    def _means(self, typed: str, value: str) -> bool:
        """Tell whether what stands in the field is the value, however it is written."""
        if typed.strip() == value:
            return True
        try:
            return float(typed) == float(value)
        except ValueError:
            return typed.replace(" ", "") == value.replace(" ", "")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if self._differs(event.input.value):
            self.post_message(self.Edited(self.setting.name, event.value, is_typing=True))

    @on(Select.Changed)
    def _chose(self, event: Select.Changed) -> None:
        event.stop()
        # The first row is told when the list is made, and may come in after the file's value.
        value = event.select.value
        typed = "" if value is Select.NULL else str(value)
        if self._differs(typed):
            self.post_message(self.Edited(self.setting.name, typed, is_typing=False))

    @on(Checkbox.Changed)
    def _ticked(self, event: Checkbox.Changed) -> None:
        event.stop()
        typed = "true" if event.checkbox.value else "false"
        if self._differs(typed):
            self.post_message(self.Edited(self.setting.name, typed, is_typing=False))

    def _differs(self, typed: str) -> bool:
        return self.stated is not None and typed != typed_of(self.stated.value)

    @on(DescendantFocus)
    def _entered(self) -> None:
        self.post_message(self.Entered(self))

    @on(DescendantBlur)
    def _left(self) -> None:
        self.post_message(self.Entered(None))

    def focus_editor(self) -> None:
        self.query_one(".editor").focus()
