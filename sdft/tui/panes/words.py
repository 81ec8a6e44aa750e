"""The words: how captions are changed, and what the model will read of each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList, Static

from sdft.config.values import resolve_path
from sdft.dataset.word_files import with_dot, words_file
from sdft.tui.commands import Done
from sdft.tui.draft import DATASET
from sdft.tui.draft_values import image_dirs
from sdft.tui.panes.fields import FIELDS_OF
from sdft.tui.panes.pane import SLICE, Make
from sdft.tui.panes.working import WorkingPane, number, problem_words
from sdft.tui.rows import literal
from sdft.tui.screens.caption import CaptionScreen
from sdft.tui.screens.label import LabelScreen
from sdft.tui.widgets.ground import Column, Row, Scroll
from sdft.tui.widgets.row_list import RowList

FIELDS = FIELDS_OF["words"]


NUM_SHOWN = 200


class WordsPane(WorkingPane):
    """Fields on the left; on the right an epoch's words, use by use."""

    HAS_DATASETS: ClassVar = True

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f4", "edit", "key.edit_caption"),
        Binding("f6", "label('caption')", "key.caption"),
        Binding("f7", "label('tag')", "key.tag"),
        Binding("f8", "again", "key.again", show=False),
    ]

    def __init__(self) -> None:
        super().__init__("step-words")
        self.rows: Sequence[dict[str, Any]] = ()

    def compose(self) -> ComposeResult:
        yield Static(Content(self.words("words.title")), classes="pane-title")
        with Row():
            with Scroll(id="words-fields", classes="fields", can_focus=False):
                yield from self.fields(FIELDS[:SLICE])
            with Column(id="words-right", classes="second"):
                yield Static("", id="words-counts", classes="counts")
                yield RowList(id="words-rows")
                with Scroll(id="words-box", can_focus=False):
                    yield Static("", id="words-one")

    def later(self) -> tuple[str, Sequence[Make]]:
        return "#words-fields", self.later_fields(FIELDS)

    def command(self, scratch: Path) -> Sequence[str]:
        return ["words", str(scratch / "step-words.toml"), "--limit", str(NUM_SHOWN)]

    def waits(self, *, blocked: bool) -> None:
        name = "wizard.blocked" if blocked else "wizard.asking"
        self.query_one("#words-counts", Static).update(Content(self.words(name)))

    def came(self, done: Done) -> None:
        counts = self.query_one("#words-counts", Static)
        rows = self.query_one("#words-rows", RowList)
        if done.code:
            self.rows = ()
            rows.fill((), ())
            self.query_one("#words-one", Static).update("")
            counts.update(literal(problem_words(done.problems, self.words), "$error"))
            return
        result = done.result
        self.rows = list(result.get("rows", []))
        counts.update(
            Content(
                self.words(
                    "words.counts",
                    uses=f"{number(result, 'uses'):,}",
                    empty=number(result, "empty"),
                    cut=number(result, "cut"),
                    longest=number(result, "longest"),
                    most=number(result, "max_token_length"),
                )
            )
        )
        rows.fill([_row(row) for row in self.rows], [row["path"] for row in self.rows])

    @on(OptionList.OptionHighlighted, "#words-rows")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if event.option_index < len(self.rows):
            row = self.rows[event.option_index]
            self.query_one("#words-one", Static).update(_whole(row, self.words("words.nothing")))

    @on(OptionList.OptionSelected, "#words-rows")
    def action_edit(self) -> None:
        """Edit the caption of the image under the cursor."""
        position = self.query_one("#words-rows", OptionList).highlighted
        draft = self.wizard.draft
        if position is None or position >= len(self.rows):
            self.app.notify(self.words("words.none_chosen"), markup=False)
            return
        image = self.cwd / str(self.rows[position]["path"])
        if self.stated("metadata_file", draft).value:
            self.app.notify(self.words("words.in_metadata"), severity="warning", markup=False)
            return
        extension = str(self.stated("caption_extension", draft).value)
        file = words_file(image, with_dot(extension))
        self.app.push_screen(CaptionScreen(image, file, graphics=self.wizard.graphics), self._back)

    def action_label(self, command: str) -> None:
        """Caption or tag the images by a model, with its progress."""
        draft = self.wizard.draft
        dirs = [name for name in image_dirs(draft, self.wizard.dataset) if name]
        if not dirs:
            self.app.notify(self.words("words.no_folder"), severity="warning", markup=False)
            return
        base = draft.file(DATASET).path.parent
        folders = [str(resolve_path(name, self.cwd, base)) for name in dirs]
        extension = str(self.stated("caption_extension", draft).value)
        self.app.push_screen(LabelScreen(command, folders, extension, self.cwd), self._back)

    def action_again(self) -> None:
        self.again()

    def _back(self, changed: bool | None) -> None:
        if changed:
            self.again()


def _row(row: dict[str, Any]) -> Content:
    words = " ".join(str(row["words"]).split())
    style = "$warning" if row["cut"] else "$foreground-muted"
    name = Path(str(row["path"])).name
    return Content.assemble(
        Content.styled(f"{row['tokens']:4} ", style),
        literal(name, "bold"),
        "  ",
        literal(words, "$foreground-muted"),
    )


def _whole(row: dict[str, Any], nothing: str) -> Content:
    """Return an item's words with the end that is not read marked."""
    words, cut = str(row["words"]), str(row["cut"])
    if not words.strip():
        return Content.styled(nothing, "$warning")
    read = words[: len(words) - len(cut)] if cut and words.endswith(cut) else words
    tail = literal(cut, "$error strike") if cut else Content("")
    return Content.assemble(literal(read), tail)
