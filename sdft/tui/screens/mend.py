"""A settings file with a mistake of TOML, open at its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static, TextArea

from sdft.config.document import parsed
from sdft.errors import ConfigError, SdftError
from sdft.files import write_bytes
from sdft.tui.rows import literal
from sdft.tui.shell import Worded
from sdft.tui.widgets.key_row import KeyRow

_LINE = re.compile(r":(\d+)$")


class MendScreen(Worded):
    """Ctrl+S writes the file and goes on, once it can be read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "key.save_file", priority=True),
        Binding("ctrl+q", "app.quit", "common.quit"),
    ]

    def __init__(self, path: Path, error: ConfigError) -> None:
        super().__init__()
        self._path = path
        self._error = error
        content = path.read_bytes()
        self._has_mark = content.startswith(b"\xef\xbb\xbf")
        self._text = content.decode("utf-8-sig", errors="replace")
        self._usual = "\r\n" if "\r\n" in self._text else "\n"

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Content(self.words("mend.title")), classes="pane-title")
            yield Static(literal(str(self._error), "$error"), id="mend-problem")
            yield TextArea(self._text, show_line_numbers=True, soft_wrap=False, id="mend-text")
        yield KeyRow()

    def on_mount(self) -> None:
        area = self.query_one(TextArea)
        area.focus()
        area.move_cursor((self._line() - 1, 0), center=True)

    def _line(self) -> int:
        found = _LINE.search(self._error.problems[0].where)
        return int(found[1]) if found else 1

    def action_save(self) -> None:
        text = self.query_one(TextArea).text.replace("\r\n", "\n")
        problem = self.query_one("#mend-problem", Static)
        try:
            parsed(text, str(self._path), is_json=False)
            mark = b"\xef\xbb\xbf" if self._has_mark else b""
            write_bytes(self._path, mark + text.replace("\n", self._usual).encode("utf-8"))
        except ConfigError as error:
            self._error = error
            problem.update(literal(str(error), "$error"))
            self.query_one(TextArea).move_cursor((self._line() - 1, 0), center=True)
        except SdftError as error:
            problem.update(literal(str(error), "$error"))
        else:
            self.app.mended()  # type: ignore[attr-defined]
