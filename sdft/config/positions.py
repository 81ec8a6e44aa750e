"""The line of every key in a TOML or JSON text, which the parsers do not tell.

In: a text that has been parsed without an error. Out: key path to line number, where a path is
made of keys and of indices of arrays, such as ("datasets", 0, "subsets", 1, "image_dir").
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_right

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'", re.DOTALL
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]*")


def toml_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, of every table, key and array entry of a TOML text."""
    scanner = _Scanner(text)
    scanner.toml()
    return scanner.lines


def json_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, of every key and array entry of a JSON text."""
    scanner = _Scanner(text)
    scanner.value(())
    return scanner.lines


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line of `path`, or of the nearest thing around it that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _key_text(quoted: str) -> str:
    """Return a quoted key without its quotes and escapes."""
    if quoted.startswith('"') and "\\" in quoted:
        # JSON has surrogate pairs, TOML has \\U and \\e; both parsers took this text already.
        try:
            return str(json.loads(quoted))
        except ValueError:
            return str(tomllib.loads(f"key = {quoted}")["key"])
    return quoted[1:-1]


class _Scanner:
    """Walks once over a valid text; `at` is the offset of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._array_sizes: dict[KeyPath, int] = {}

    def toml(self) -> None:
        table: KeyPath = ()
        while self._skip_blank():
            start = self.at
            if self.text.startswith("[", start):
                is_array = self.text.startswith("[[", start)
                self.at += 2 if is_array else 1
                table = self._table_path(self._dotted_key(), is_array)
                self.at = self.text.index("]]" if is_array else "]", self.at) + 1 + is_array
                self._note(table, start)
            else:
                self._pair(table)

    def value(self, path: KeyPath) -> None:
        self._skip_blank()
        opening = self.text[self.at : self.at + 1]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        elif match := _STRING.match(self.text, self.at):
            self.at = match.end()
        else:
            match = _SCALAR.match(self.text, self.at)
            assert match is not None
            self.at = match.end()

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        while self._skip_blank() and self.text[self.at] != "]":
            self._note((*path, index), self.at)
            self.value((*path, index))
            index += 1
            self._skip_blank()
            if self.text[self.at] == ",":
                self.at += 1
        self.at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while self._skip_blank() and self.text[self.at] != "}":
            self._pair(path)
            self._skip_blank()
            if self.text[self.at] == ",":
                self.at += 1
        self.at += 1

    def _pair(self, table: KeyPath) -> None:
        start = self.at
        path = (*table, *self._dotted_key())
        self._note(path, start)
        self._skip_blank()
        self.at += 1  # `=` in TOML, `:` in JSON
        self.value(path)

    def _dotted_key(self) -> tuple[str, ...]:
        parts = []
        while True:
            self._skip_blank()
            if match := _STRING.match(self.text, self.at):
                parts.append(_key_text(match[0]))
            else:
                match = _BARE_KEY.match(self.text, self.at)
                assert match is not None, "the text was parsed before"
                parts.append(match[0])
            self.at = match.end()
            self._skip_blank()
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def _table_path(self, parts: tuple[str, ...], is_array: bool) -> KeyPath:
        """Return where a header leads: through the newest entry of each array of tables."""
        path: KeyPath = ()
        for position, part in enumerate(parts):
            path = (*path, part)
            if is_array and position == len(parts) - 1:
                index = self._array_sizes.get(path, 0)
                self._array_sizes[path] = index + 1
                return (*path, index)
            if path in self._array_sizes:
                path = (*path, self._array_sizes[path] - 1)
        return path

    def _skip_blank(self) -> bool:
        """Go to the next character that means something; return whether there is one."""
        match = _BLANK.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.at < len(self.text)

    def _note(self, path: KeyPath, offset: int) -> None:
        line = bisect_right(self._line_ends, offset - 1) + 1
        # The first header of an array stands for the whole array.
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)
