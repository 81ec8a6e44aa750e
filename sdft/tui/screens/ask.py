"""Short questions over a screen: yes or no, a number, some of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, SelectionList, Static
from textual.widgets.selection_list import Selection

from sdft.control import checked_arguments
from sdft.errors import UserError

if TYPE_CHECKING:
    from sdft.language import Words
    from sdft.tui.shell import Shell

_Answer = TypeVar("_Answer")


class Question(ModalScreen[_Answer]):
    """A box in the middle of the screen."""

    @property
    def words(self) -> Words:
        return cast("Shell", self.app).words


class AskYes(Question[bool]):
    """Gives True for yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", show=False),
        Binding("n,escape", "answer(False)", show=False),
        Binding("left,right", "app.focus_next", show=False),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content(self._question), classes="box-title")
            with Horizontal(classes="box-buttons"):
                yield Button(self.words("common.yes"), id="yes", variant="primary")
                yield Button(self.words("common.no"), id="no")
            yield Static(Content(self.words("ask.keys")), classes="box-hint")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class AskRate(Question[float | None]):
    """Gives a learning rate, or None for none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False)]

    def __init__(self, present: float | None) -> None:
        super().__init__()
        self._present = present

    def compose(self) -> ComposeResult:
        present = "-" if self._present is None else f"{self._present:g}"
        with Vertical(classes="box"):
            yield Static(Content(self.words("ask.rate")), classes="box-title")
            yield Static(Content(self.words("ask.rate_now", rate=present)))
            yield Input(placeholder="1e-5", max_length=24, id="rate")
            yield Static("", id="wrong")
            yield Static(Content(self.words("ask.keys_rate")), classes="box-hint")

    def action_leave(self) -> None:
        self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            arguments = checked_arguments("set", {"learning_rate": event.value})
        except UserError:
            self.query_one("#wrong", Static).update(Content(self.words("ask.rate_bad")))
            return
        self.dismiss(arguments["learning_rate"])


class AskRuns(Question[tuple[int, ...] | None]):
    """Gives the positions of the chosen names, or None for no change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("enter", "done", show=False, priority=True),
    ]

    def __init__(self, names: Sequence[str], chosen: Sequence[int]) -> None:
        super().__init__()
        self._names = names
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        rows = [
            Selection(Content(name), position, position in self._chosen)
            for position, name in enumerate(self._names)
        ]
        with Vertical(classes="box"):
            yield Static(Content(self.words("ask.runs")), classes="box-title")
            yield SelectionList[int](*rows)
            yield Static(Content(self.words("ask.keys_runs")), classes="box-hint")

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_done(self) -> None:
        self.dismiss(tuple(sorted(self.query_one(SelectionList).selected)))
