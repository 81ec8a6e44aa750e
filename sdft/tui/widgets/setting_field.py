"""One setting as a field, drawn from its declaration: a check box, a choice, or a line to type."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.events import DescendantBlur, DescendantFocus
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Checkbox, Input, Select, Static

from sdft.config.settings import Setting
from sdft.errors import Problem
from sdft.language import Words
from sdft.tui.draft_values import Stated, declared, typed_of
from sdft.tui.rows import literal
from sdft.tui.widgets.choice import Choice

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


class SettingField(Widget):
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

        def __init__(self, field: SettingField, *, has_keys: bool) -> None:
            super().__init__()
            self.field = field
            self.has_keys = has_keys

    def __init__(self, name: str, stated: Stated, problem: Problem | None, words: Words) -> None:
        super().__init__(id=f"setting-{name}", classes="setting")
        self.setting: Setting = declared(name)
        self.stated = stated
        self.problem = problem
        self._words = words
        self._editor: Widget | None = None

    @property
    def has_choice(self) -> bool:
        return bool(self.setting.choices) and not self.setting.open_choices

    @property
    def choices(self) -> tuple[str, ...]:
        """Of a setting that is true, false or found out: both words."""
        return self.setting.choices or ("true", "false") * self.setting.is_flag

    def compose(self) -> ComposeResult:
        self._editor = self._made_editor()
        yield self._editor
        if self.problem is not None:
            yield self._problem_row()

    def _made_editor(self) -> Widget:
        """Return the editor with the value in it: what comes later costs another layout."""
        setting, typed = self.setting, typed_of(self.stated.value)
        if setting.is_flag and setting.default is not None:
            return Tick("", self.stated.value is True, compact=True, classes="editor")
        if (self.has_choice or setting.is_flag) and not setting.is_list:
            return Choice(
                self._rows(typed),
                value=typed or Select.NULL,
                prompt="-",
                allow_blank=setting.default is None or not typed,
                compact=True,
                classes="editor",
            )
        known = SuggestFromList(setting.choices, case_sensitive=False) if setting.choices else None
        return Input(typed, compact=True, suggester=known, select_on_focus=False, classes="editor")

    def _rows(self, typed: str) -> list[tuple[str, str]]:
        """Return the choices; what a file says is among them, though it is none."""
        others = [typed] if typed and typed not in self.choices else []
        return [(choice, choice) for choice in (*self.choices, *others)]

    def render(self) -> Content:
        """Return the name; the editor lies over the rest of the row.

        A field is two widgets, since what a step costs when it comes up is counted in widgets.
        """
        source = self.stated.source
        style = "" if source in ("dataset", "config") else "$foreground-muted"
        unit = f" {self._words.phrase(self.setting.unit)}" if self.setting.unit else ""
        name = Content.assemble(
            Content.styled(f"{SIGNS[source]} ", "$foreground-muted"),
            Content.styled(self.setting.name, style),
            Content.styled(unit, "$foreground-muted"),
        )
        if self._editor is None:
            return name
        return name.truncate(self._editor.styles.margin.left - 1, ellipsis=True)

    def _problem_row(self) -> Static:
        self.styles.height = "auto"
        return Static(self._problem_words(), classes="setting-problem")

    def _problem_words(self) -> Content:
        if self.problem is None:
            return Content("")
        told = self._words.problem(self.problem)
        return literal(f"{told.what}. {told.fix}".rstrip(". "))

    def show(self, stated: Stated, problem: Problem | None) -> None:
        """Draw a value and what is wrong with it. What is being typed is left alone."""
        has_other_source = self.stated.source != stated.source
        has_other_problem = self.problem != problem
        self.stated, self.problem = stated, problem
        if self._editor is None:
            # Drawn when the field is made.
            return
        if has_other_source:
            self.refresh()
        if has_other_problem:
            self._show_problem()
        self._show_value(self._editor, stated.value)

    def _show_problem(self) -> None:
        for row in self.query(".setting-problem").results(Static):
            row.update(self._problem_words())
            row.display = self.problem is not None
            return
        if self.problem is not None:
            self.mount(self._problem_row())

    def _show_value(self, editor: Widget, value: object) -> None:
        typed = typed_of(value)
        # Emptied, to type something else: the default comes back when the field is left.
        if isinstance(editor, Input) and editor.has_focus and self._may_stay(editor.value, typed):
            return
        # The value that is put in here must not come back as an edit.
        with self.prevent(Input.Changed, Select.Changed, Checkbox.Changed):
            if isinstance(editor, Checkbox):
                editor.value = value is True
            elif isinstance(editor, Select):
                if typed and typed not in self.choices:
                    editor.set_options(self._rows(typed))
                editor.value = typed or Select.NULL
            elif isinstance(editor, Input) and editor.value != typed:
                editor.value = typed

    def _may_stay(self, shown: str, value: str) -> bool:
        return not shown or self._means(shown, value)

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
        # Emptied, mostly to type something else: to take the key out of the file now and put it
        # back in would lose its place and its comment.
        if event.value and self._differs(event.value):
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
        return typed != typed_of(self.stated.value)

    @on(DescendantFocus)
    def _entered(self) -> None:
        self.post_message(self.Entered(self, has_keys=True))

    @on(DescendantBlur)
    def _left(self) -> None:
        if self.is_emptied:
            self.post_message(self.Edited(self.setting.name, "", is_typing=False))
        self.post_message(self.Entered(self, has_keys=False))

    @property
    def is_emptied(self) -> bool:
        """Nothing stands in the field, and what the file says was not taken out yet."""
        is_stated = self.stated.source in ("dataset", "config") and typed_of(self.stated.value)
        return bool(is_stated) and isinstance(self._editor, Input) and not self._editor.value

    def focus_editor(self) -> None:
        if self._editor is not None:
            self._editor.focus()
