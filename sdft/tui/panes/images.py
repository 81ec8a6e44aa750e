"""The images: folders with what they hold, and which of them are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import DirectoryTree, Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from sdft.config.values import resolve_path
from sdft.tui.draft import DATASET, Draft, without_subset
from sdft.tui.draft_values import Checked, image_dirs
from sdft.tui.folder_look import FolderCounts, look_at, with_folder
from sdft.tui.panes.fields import FIELDS_OF
from sdft.tui.panes.pane import SLICE, Edit, Make, Pane
from sdft.tui.rows import literal, table
from sdft.tui.widgets.folder_tree import FolderTree
from sdft.tui.widgets.ground import Column, Row, Scroll
from sdft.views.text import visible

FIELDS = FIELDS_OF["images"]


class Chosen(OptionList):
    """The folders that are trained on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("delete,minus", "take_out", "key.remove_folder"),
    ]

    class TakeOut(Message):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def action_take_out(self) -> None:
        if self.highlighted is not None:
            self.post_message(self.TakeOut(self.highlighted))


class ImagesPane(Pane):
    """A tree of folders, the counts of the one under the cursor, and those that were chosen."""

    HAS_DATASETS: ClassVar = True

    class Counted(Message):
        def __init__(self, counts: FolderCounts) -> None:
            super().__init__()
            self.counts = counts

    def __init__(self) -> None:
        super().__init__("step-images")
        self._counts: FolderCounts | None = None
        self._dirs: list[str] = []
        self._asked: Path | None = None

    def compose(self) -> ComposeResult:
        yield Static(Content(self.words("folders.title")), classes="pane-title")
        yield Input(placeholder=self.words("folders.type"), id="folder-path", compact=True)
        with Row():
            yield FolderTree(self.wizard_start(), id="folders")
            with Scroll(id="images-right", classes="second", can_focus=False):
                yield Static("", id="folder-counts", classes="counts")
                yield Static(Content(self.words("folders.chosen")), classes="pane-heading")
                yield Chosen(id="chosen", compact=True, markup=False)
                with Column(id="subset-fields"):
                    yield from self.fields(FIELDS[:SLICE])

    def later(self) -> tuple[str, Sequence[Make]]:
        return "#subset-fields", self.later_fields(FIELDS)

    def wizard_start(self) -> Path:
        """Return where the tree begins: above the first chosen folder, or the current folder."""
        draft = self.wizard.draft
        dirs = image_dirs(draft, self.wizard.dataset)
        if dirs and dirs[0]:
            first = resolve_path(dirs[0], self.cwd, draft.file(DATASET).path.parent)
            if first.is_dir():
                return first.parent
        return self.cwd

    def first_focus(self) -> None:
        self.query_one("#folders").focus()

    def show(self, draft: Draft, checked: Checked) -> None:
        dirs = image_dirs(draft, self.wizard.dataset)
        has_subset = bool(dirs)
        self.query_one("#subset-fields").display = has_subset
        if has_subset:
            super().show(draft, checked)
        if dirs != self._dirs:
            self._dirs = dirs
            chosen = self.query_one("#chosen", Chosen)
            with self.prevent(OptionList.OptionHighlighted):
                chosen.clear_options()
                chosen.add_options([Option(literal(name or "-")) for name in dirs])
                if dirs:
                    chosen.highlighted = min(self.wizard.subset, len(dirs) - 1)
        folder = draft.file(DATASET).path.parent
        # What was typed may be no path at all, such as one with a zero in it.
        paths = frozenset(Path(folder, name).absolute() for name in dirs if "\0" not in name)
        self.query_one(FolderTree).show_chosen(paths)

    # The folder under the cursor.

    def on_folder_tree_looked(self, event: FolderTree.Looked) -> None:
        event.stop()
        self._count(event.path)

    @work(thread=True, exclusive=True, group="count", description="count a folder")
    def _count(self, path: Path) -> None:
        worker = get_current_worker()
        for counts in look_at(path):
            if worker.is_cancelled:
                return
            self.post_message(self.Counted(counts))

    def on_images_pane_counted(self, event: Counted) -> None:
        event.stop()
        self._counts = event.counts
        self.query_one("#folder-counts", Static).update(self._count_rows(event.counts))
        if event.counts.is_done and event.counts.path == self._asked:
            self._asked = None
            self._use(event.counts)

    def _count_rows(self, counts: FolderCounts) -> Content:
        words = self.words
        name = literal(counts.path.name or str(counts.path), "bold")
        if counts.problem:
            return Content.assemble(name, "\n", literal(counts.problem, "$error"))
        rows = [(words("folders.images"), f"{counts.images:,}{'' if counts.is_done else ' ...'}")]
        captions = counts.likely_captions
        for kind, number in counts.beside[:3]:
            share = f"{number:,}  {counts.coverage(kind):.0%}"
            name_of_kind = words("folders.captions", kind=kind) if kind == captions else kind
            rows.append((name_of_kind, share))
        if counts.is_done and counts.images and not captions:
            rows.append((words("folders.no_captions"), "-"))
        rows += [
            (words("folders.other", kind=kind or "-"), f"{n:,}") for kind, n in counts.other[:3]
        ]
        if counts.folders:
            rows.append((words("folders.folders"), f"{counts.folders:,}"))
        return Content.assemble(name, "\n", table(rows, 36))

    # Choosing.

    def on_directory_tree_directory_selected(self, event: DirectoryTree.DirectorySelected) -> None:
        event.stop()
        self._ask(event.path)

    @on(Input.Submitted, "#folder-path")
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        typed = event.value.strip()
        if typed and "\0" not in typed:
            self._ask(resolve_path(typed, self.cwd, None))

    def _ask(self, path: Path) -> None:
        """Use a folder when it is counted: its captions decide the extension."""
        self._asked = path
        self._count(path)

    def _use(self, counts: FolderCounts) -> None:
        if counts.problem:
            self.app.notify(f"{counts.path}: {counts.problem}", severity="error", markup=False)
            return
        if not counts.images and not counts.folders:
            self.app.notify(self.words("folders.empty_folder"), severity="warning", markup=False)
            return
        if not counts.images:
            self.app.notify(self.words("folders.only_folders"), severity="warning", markup=False)
        draft = self.wizard.draft
        add = partial(with_folder, counts=counts, dataset=self.wizard.dataset)
        if add(draft) == draft:
            self.app.notify(self.words("folders.already"), markup=False)
            return
        self.post_message(Edit("image_dir", add))
        self.app.notify(self.words("folders.added", path=visible(str(counts.path))), markup=False)

    def on_chosen_take_out(self, event: Chosen.TakeOut) -> None:
        event.stop()
        self.wizard.settle()
        number, dataset = event.number, self.wizard.dataset
        if number >= len(self._dirs):
            return
        name = self._dirs[number]

        def change(draft: Draft) -> Draft:
            # The same key, pressed again before the list was drawn, means the same folder.
            if image_dirs(draft, dataset)[number : number + 1] != [name]:
                return draft
            return draft.with_text(
                DATASET, without_subset(draft.file(DATASET).text, number, dataset)
            )

        self.wizard.subset = max(min(number, len(self._dirs) - 2), 0)
        self.post_message(Edit("image_dir", change))

    @on(OptionList.OptionHighlighted, "#chosen")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self.wizard.settle()
        self.wizard.subset = event.option_index
        self.show(self.wizard.draft, self.wizard.checked)
