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
    """Shows the value that counts; typing posts `Edited`. Knows nothing of files.

    What stands in the editor is news until whoever holds the draft calls `took`. News is never
    drawn over: the messages of a few keys may still wait when an older value is drawn.
    """

    class Edited(Message):
        """The person typed or chose a value: take in what stands in the field by now."""

        def __init__(self, field: SettingField, *, is_typing: bool) -> None:
            super().__init__()
            self.field = field
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
        self._taken = typed_of(stated.value)
        """What stood in the editor when it last agreed with the draft."""

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

    @property
    def text(self) -> str:
        """What stands in the editor, as a person types it."""
        editor = self._editor
        if isinstance(editor, Checkbox):
            return "true" if editor.value else "false"
        # A list of choices has its first value only once it is mounted.
        if isinstance(editor, Select) and editor.is_mounted:
            return "" if editor.value is Select.NULL else str(editor.value)
        return editor.value if isinstance(editor, Input) else self._taken

    @property
    def has_news(self) -> bool:
        """Whether the person typed or chose what the draft does not hold yet."""
        is_stated = self.stated.source in ("dataset", "config")
        can_be_emptied = is_stated or not isinstance(self._editor, Input)
        return self.text != self._taken and (bool(self.text) or can_be_emptied)

    @property
    def is_emptied(self) -> bool:
        """Nothing stands in the field, and what the file says was not taken out yet."""
        return isinstance(self._editor, Input) and not self.text and self.has_news

    def took(self, typed: str, stated: Stated) -> None:
        """Note what the draft makes of what was typed."""
        self._taken = typed
        self._note(stated)

    def show(self, stated: Stated, problem: Problem | None) -> None:
        """Draw a value and what is wrong with it. What is being typed is left alone."""
        has_other_value = repr(self.stated.value) != repr(stated.value)
        has_other_problem = self.problem != problem
        self.problem = problem
        self._note(stated)
        if self._editor is None:
            # Drawn when the field is made.
            return
        if has_other_problem:
            self._show_problem()
        # The person's own words for a value stay while the field has the keys.
        if not self.has_news and (has_other_value or not self._is_typed_in):
            self._show_value(self._editor, stated.value)

    def _note(self, stated: Stated) -> None:
        has_other_source = self.stated.source != stated.source
        self.stated = stated
        if has_other_source and self._editor is not None:
            self.refresh()

    @property
    def _is_typed_in(self) -> bool:
        return isinstance(self._editor, Input) and self.screen.focused is self._editor

    def _show_problem(self) -> None:
        for row in self.query(".setting-problem").results(Static):
            row.update(self._problem_words())
            row.display = self.problem is not None
            return
        if self.problem is not None:
            self.mount(self._problem_row())

    def _show_value(self, editor: Widget, value: object) -> None:
        typed = typed_of(value)
        # The value that is put in here must not come back as an edit.
        with self.prevent(Input.Changed, Select.Changed, Checkbox.Changed):
            if isinstance(editor, Checkbox):
                editor.value = value is True
            elif isinstance(editor, Select):
                if typed and typed not in self.choices:
                    editor.set_options(self._rows(typed))
                editor.value = typed or Select.NULL
            elif isinstance(editor, Input) and editor.value != typed:
                _rewrite(editor, typed)
        self._taken = self.text

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        # Emptied, mostly to type something else: to take the key out of the file now and put it
        # back in would lose its place and its comment.
        if self.text and self.has_news:
            self.post_message(self.Edited(self, is_typing=True))

    @on(Select.Changed)
    @on(Checkbox.Changed)
    def _chose(self, event: Select.Changed | Checkbox.Changed) -> None:
        event.stop()
        # The first row of a list is told when the list is made, and is no news.
        if self.has_news:
            self.post_message(self.Edited(self, is_typing=False))

    @on(DescendantFocus)
    def _entered(self) -> None:
        self.post_message(self.Entered(self, has_keys=True))

    @on(DescendantBlur)
    def _left(self) -> None:
        if self.is_emptied:
            self.post_message(self.Edited(self, is_typing=False))
        self.post_message(self.Entered(self, has_keys=False))

    def focus_editor(self) -> None:
        if self._editor is not None:
            self._editor.focus()


def _rewrite(editor: Input, text: str) -> None:
    """Put in another text; the cursor keeps its place, at the end too."""
    selection, was_at_end = editor.selection, editor.cursor_at_end
    editor.value = text
    if was_at_end:
        editor.cursor_position = len(text)
    else:
        editor.selection = selection
