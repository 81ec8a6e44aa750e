"""The review: what is still wrong, what the run will take, and the files with their changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Button, OptionList, Static

from sdft.config.document import shown
from sdft.tui.commands import Done, shown_line
from sdft.tui.draft import Draft, changed_rows
from sdft.tui.draft_values import Checked
from sdft.tui.panes.working import WorkingPane, problem_words
from sdft.tui.rows import literal, table
from sdft.tui.starting import train_words
from sdft.tui.widgets.ground import Column, Row, Scroll
from sdft.tui.widgets.row_list import RowList
from sdft.views.plan_text import advice, plan_rows


class ReviewPane(WorkingPane):
    """Problems on top, the plan on the left, the files on the right, the command below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5", "start", "key.start"),
        Binding("f6", "copy", "key.copy_line"),
        Binding("f8", "again", "key.again", show=False),
    ]

    def __init__(self) -> None:
        super().__init__("step-review")
        self._fields: Sequence[str] = ()
        self._shown_texts: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        words = self.words
        yield Static(Content(words("review.title")), classes="pane-title")
        yield RowList(id="problems")
        with Row(id="review-parts"):
            with Scroll(id="plan-box"):
                yield Static("", id="plan")
            with Scroll(id="files-box", classes="second"):
                yield Static("", id="files")
        with Row(id="review-buttons"):
            yield Button(words("review.start"), id="start", variant="primary", compact=True)
            yield Button(words("review.save"), id="save", compact=True)
            with Column():
                yield Static("", id="line")

    def first_focus(self) -> None:
        problems = self.query_one("#problems")
        (problems if problems.display else self.query_one("#start")).focus()

    def show(self, draft: Draft, checked: Checked) -> None:
        super().show(draft, checked)
        self._show_problems(checked)
        self._show_files(draft)
        line = shown_line(train_words(draft, self.cwd))
        self.query_one("#line", Static).update(literal(f"$ {line}", "$foreground-muted"))
        self.query_one("#start", Button).disabled = bool(checked.problems)

    def _show_problems(self, checked: Checked) -> None:
        listed = self.query_one("#problems", RowList)
        listed.display = bool(checked.problems)
        rows = [
            Content.assemble(
                Content.styled(f"✗ {field or problem.where or '-'}  ", "bold $error"),
                literal(" ".join(problem.what.split())),
                literal(f"  → {problem.fix}" if problem.fix else "", "$foreground-muted"),
            )
            for field, problem in zip(
                checked.fields, map(self.words.problem, checked.problems), strict=True
            )
        ]
        self._fields = checked.fields
        told = zip(checked.fields, checked.problems, strict=True)
        listed.fill(rows, [field or problem.where for field, problem in told])

    def _show_files(self, draft: Draft) -> None:
        texts = tuple(file.text for file in draft.files)
        if texts == self._shown_texts and not self.wizard.is_saving:
            return
        self._shown_texts = texts
        parts = []
        for file in draft.files:
            name = "review.changed" if file.is_changed else "review.unchanged"
            title = self.words(name, path=shown(file.path, self.cwd))
            parts.append(Content.styled(literal(title).plain, "bold $primary"))
            for mark, row in changed_rows(file.old_text, file.text):
                style = {"+": "$success", "-": "$error", " ": "$foreground-muted"}[mark]
                parts.append(literal(f"{mark} {row}", style))
        self.query_one("#files", Static).update(Content("\n").join(parts))

    @on(OptionList.OptionSelected, "#problems")
    def _jump(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_index < len(self._fields):
            dataset = self.wizard.checked.datasets[event.option_index]
            self.wizard.go_to_field(self._fields[event.option_index], dataset)

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        self.wizard.start()

    @on(Button.Pressed, "#save")
    def _save(self, event: Button.Pressed) -> None:
        event.stop()
        self.wizard.action_save()

    def action_copy(self) -> None:
        line = shown_line(train_words(self.wizard.draft, self.cwd))
        self.app.copy_to_clipboard(line)
        self.app.notify(line, markup=False)

    def action_again(self) -> None:
        self.again()

    # The plan.

    def command(self, scratch: Path) -> Sequence[str]:
        return ["plan", str(scratch / "step-review.toml")]

    def waits(self, *, blocked: bool) -> None:
        name = "review.no_plan" if blocked else "review.planning"
        self.query_one("#plan", Static).update(Content(self.words(name)))

    def came(self, done: Done) -> None:
        plan = self.query_one("#plan", Static)
        if not done.result or "steps" not in done.result:
            plan.update(literal(problem_words(done.problems, self.words), "$error"))
            return
        rows = plan_rows(done.result, self.words)
        content = table(rows, max(self.query_one("#plan-box").content_size.width - 1, 30))
        style = "$success" if done.result["fits"] else "$warning"
        told = [literal(line, style) for line in advice(done.result, self.words)]
        plan.update(Content("\n").join([content, *told]))
