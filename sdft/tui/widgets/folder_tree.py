"""The folders of a disk as a tree; files are counted elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DirectoryTree
from textual.widgets._directory_tree import DirEntry
from textual.widgets._tree import TreeNode

from sdft.views.text import visible

MAX_FOLDERS = 2_000
"""Of one folder; more rows than that hold up the screen, and nobody looks through them."""


class FolderTree(DirectoryTree):
    """Enter chooses a folder, space opens it, backspace goes one up."""

    auto_expand = False
    ICON_NODE = "▶ "
    ICON_NODE_EXPANDED = "▼ "

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "key.use_folder"),
        Binding("space", "toggle_node", "key.open_folder"),
        Binding("right", "open_node", show=False),
        Binding("left", "close_node", show=False),
        Binding("backspace", "up", "key.folder_up"),
    ]

    class Looked(Message):
        """Another folder is under the cursor."""

        def __init__(self, path: Path) -> None:
            super().__init__()
            self.path = path

    def __init__(self, path: Path, id: str) -> None:
        super().__init__(path, id=id)
        self.auto_expand = False
        self.chosen: frozenset[Path] = frozenset()

    def filter_paths(self, paths: Iterable[Path]) -> Iterable[Path]:
        shown = 0
        for path in paths:
            if not path.name.startswith(".") and self._safe_is_dir(path):
                shown += 1
                yield path
                if shown == MAX_FOLDERS:
                    return

    def process_label(self, label: str | Text) -> Text:
        return Text(visible(label if isinstance(label, str) else label.plain).replace("\n", " "))

    def render_label(self, node: TreeNode[DirEntry], base_style: Style, style: Style) -> Text:
        label = super().render_label(node, base_style, style)
        if node.data is not None and node.data.path.absolute() in self.chosen:
            label.append("  ✓")
        return label

    def on_tree_node_highlighted(self, event: DirectoryTree.NodeHighlighted[DirEntry]) -> None:
        event.stop()
        if event.node.data is not None:
            self.post_message(self.Looked(event.node.data.path))

    def show_chosen(self, chosen: frozenset[Path]) -> None:
        if chosen != self.chosen:
            self.chosen = chosen
            self.clear_cached_lines()

    def clear_cached_lines(self) -> None:
        self._clear_line_cache()
        self.refresh()

    def action_open_node(self) -> None:
        if self.cursor_node is not None:
            self.cursor_node.expand()

    def action_close_node(self) -> None:
        node = self.cursor_node
        if node is not None and node.is_expanded:
            node.collapse()
        elif node is not None and node.parent is not None:
            self.move_cursor(node.parent)

    def action_up(self) -> None:
        above = Path(self.path).absolute().parent
        if above != Path(self.path):
            self.path = above
            self.post_message(self.Looked(above))
