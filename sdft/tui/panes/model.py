"""The base model: which file, and at once what it is."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Static
from textual.worker import get_current_worker

from sdft.config.values import resolve_path
from sdft.tui.draft import Draft
from sdft.tui.draft_values import Checked, stated, with_setting
from sdft.tui.panes.fields import FIELDS_OF
from sdft.tui.panes.pane import Edit, Pane
from sdft.tui.rows import literal, table
from sdft.tui.widgets.ground import Scroll
from sdft.units import format_bytes

if TYPE_CHECKING:
    from sdft.tui.model_look import Found

FIELDS = FIELDS_OF["model"]


BLOCK_BYTES = 8 * 1024 * 1024


class ModelPane(Pane):
    """Asks for the model, and says what it is."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f4", "browse", "key.browse")]

    class Looked(Message):
        def __init__(self, found: Found, sha256: str = "") -> None:
            super().__init__()
            self.found = found
            self.sha256 = sha256

    def __init__(self) -> None:
        super().__init__("step-model")
        self._looked_at = ""
        self._found: Found | None = None

    def compose(self) -> ComposeResult:
        yield Static(Content(self.words("model.title")), classes="pane-title")
        yield from self.fields(FIELDS[:1])
        yield Button(self.words("model.browse"), id="browse", compact=True)
        with Scroll(id="model-scroll", can_focus=False):
            yield Static("", id="model-facts")
            yield from self.fields(FIELDS[1:])

    def show(self, draft: Draft, checked: Checked) -> None:
        super().show(draft, checked)
        value = str(stated(draft, FIELDS[0]).value or "")
        if value != self._looked_at:
            self._looked_at = value
            self._found = None
            self.wizard.model_problem = ""
            self._draw()
            if value:
                self._look(value, draft.config.path.parent)
        elif not value:
            self._draw()

    @on(Button.Pressed, "#browse")
    def action_browse(self) -> None:
        """Choose a file in a dialog."""
        # 40 ms to import; the first screen is up before.
        from textual_fspicker import FileOpen, Filters

        start = Path(self._looked_at or ".").expanduser()
        start = start if start.is_absolute() else self.cwd / start
        while not start.is_dir() and start != start.parent:
            start = start.parent
        kinds = (".safetensors", ".ckpt")
        filters = Filters(
            (self.words("model.files"), lambda path: path.suffix.lower() in kinds),
            (self.words("model.all_files"), lambda path: True),
        )
        dialog = FileOpen(
            start,
            self.words("model.browse"),
            open_button=self.words("common.ok"),
            cancel_button=self.words("common.cancel"),
            filters=filters,
        )
        self.app.push_screen(dialog, self._chosen)

    def _chosen(self, path: Path | None) -> None:
        if path is not None:
            # A folder of diffusers is chosen by its model_index.json.
            path = path.parent if path.name == "model_index.json" else path
            change = partial(with_setting, name=FIELDS[0], typed=str(path))
            self.post_message(Edit(FIELDS[0], change))

    @work(thread=True, exclusive=True, group="model", description="look at the model")
    def _look(self, typed: str, folder: Path) -> None:
        # Takes 40 ms to import; the first screen is up before.
        from sdft.tui.model_look import look_at_model

        worker = get_current_worker()
        path = resolve_path(typed, self.cwd, folder)
        found = look_at_model(path)
        if worker.is_cancelled:
            return
        self.post_message(self.Looked(found))
        if found.facts is None or not path.is_file():
            return
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                if worker.is_cancelled:
                    return
                digest.update(block)
        self.post_message(self.Looked(found, digest.hexdigest()))

    def on_model_pane_looked(self, event: Looked) -> None:
        event.stop()
        found = self._found = event.found
        self._draw(event.sha256)
        told = found.facts.problems if found.facts else ()
        self.wizard.model_problem = str(told[0]) if told else found.problem

    def _draw(self, sha256: str = "") -> None:
        self.query_one("#model-facts", Static).update(self._content(sha256))

    def _content(self, sha256: str) -> Content:
        words, found = self.words, self._found
        if not self._looked_at:
            return Content(words("model.none").strip("\n"))
        if found is None:
            return Content(words("model.looking"))
        if found.facts is None:
            return literal(found.problem, "$error")
        facts = found.facts
        parts = [
            (words(f"model.part_{part}"), _part(told.num_parameters, told.dtypes))
            for part, told in facts.parts.items()
        ]
        rows = [
            (words("model.family"), facts.title),
            (words("model.predicts"), facts.prediction_type or words("model.unsaid")),
            (words("model.form"), facts.form),
            (words("model.size"), format_bytes(found.size_bytes)),
            *parts,
            ("sha256", sha256[:32] + "..." if sha256 else words("model.reading")),
        ]
        content = table(rows, 62)
        for problem in facts.problems:
            content = Content.assemble(content, "\n", literal(str(problem), "$error"))
        return content


def _part(num_parameters: int, dtypes: tuple[str, ...]) -> str:
    number = f"{num_parameters / 1e6:,.0f} M" if num_parameters >= 1e6 else f"{num_parameters:,}"
    return f"{number}  {' '.join(dtypes)}"
