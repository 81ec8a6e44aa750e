"""One file of settings as read: its values, and the line that each stands on.

In: a path of a .toml or .json. Out: a Document. Nothing is checked against the schema here.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft.config.positions import KeyPath, json_lines, line_of, toml_lines
from sdft.errors import ConfigError, DataError, Problem, nearest
from sdft.files import read_text

BACKSLASH_FIX = "in double quotes \\ begins an escape; write {literal} or {slashes}"

_YAML_LINE = re.compile(r"\s*[\w-]+\s*:")
_PLACE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What one file says."""

    path: Path
    """Absolute."""
    name: str
    """The path as messages show it."""
    values: Mapping[str, Any]
    lines: dict[KeyPath, int]

    def where(self, path: KeyPath) -> str:
        """Return `file:line` of a key, or of the table that should hold it."""
        line = line_of(self.lines, path)
        return f"{self.name}:{line}" if line else self.name


def read_document(path: Path, cwd: Path) -> Document:
    """Read a file of settings; the ending .json makes it JSON, any other TOML.

    Raises: ConfigError for a file that is missing, unreadable or not in its format.
    """
    name = shown(path, cwd)
    is_json = path.suffix.lower() == ".json"
    try:
        # The TOML parser wants bare line feeds after a lone carriage return is ruled out.
        text = read_text(path)
    except DataError as error:
        raise ConfigError(problems=error.problems) from error
    except OSError as error:
        raise ConfigError(problems=[_unreadable(path, name, error)]) from error
    values, lines = parsed(text, name, is_json=is_json)
    if not isinstance(values, dict):
        raise ConfigError(what="the file must hold one object { ... }", where=name)
    return Document(path=Path(os.path.abspath(path)), name=name, values=values, lines=lines)


def parsed(text: str, name: str, *, is_json: bool) -> tuple[Any, dict[KeyPath, int]]:
    """Return what a TOML or JSON text holds, and the line of each key.

    Raises: ConfigError with the line of the mistake.
    """
    try:
        values = json.loads(text) if is_json else tomllib.loads(text)
        lines = json_lines(text) if is_json else toml_lines(text.replace("\r\n", "\n"))
    except RecursionError:
        raise ConfigError(what="brackets are nested too deeply", where=name) from None
    except json.JSONDecodeError as error:
        raise _parse_error("JSON", name, text, error.msg, error.lineno) from error
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        raise _parse_error("TOML", name, text, _PLACE.sub("", str(error)), line) from error
    except ValueError as error:
        # Python reads no number of more than 4,300 digits.
        raise ConfigError(what=f"a number that cannot be read: {error}", where=name) from error
    return values, lines


def shown(path: Path, cwd: Path) -> str:
    """Return a path as a person at `cwd` would write it."""
    absolute = Path(os.path.abspath(cwd / path))
    folder = Path(os.path.abspath(cwd))
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)


def quoted_path(raw: str) -> str:
    """Return the advice for a Windows path that lost its backslashes in double quotes."""
    return BACKSLASH_FIX.format(literal=f"'{raw}'", slashes='"' + raw.replace("\\", "/") + '"')


def _unreadable(path: Path, name: str, error: OSError) -> Problem:
    if isinstance(error, FileNotFoundError):
        folder = path.parent
        others = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return Problem("no such file", name, nearest(path.name, others), "no_such_file")
    if path.is_dir():
        what = "this is a folder; a .toml or .json file of settings is wanted"
        return Problem(what, name, key="folder_of_settings")
    return Problem(f"cannot be read: {error.strerror or error}", name)


def _parse_error(kind: str, name: str, text: str, message: str, line: int) -> ConfigError:
    source = text.splitlines()[line - 1] if 0 < line <= len(text.splitlines()) else ""
    fix = ""
    inside = re.search(r'"(.*)"', source) or re.search(r'"(.*)', source)
    if inside and "\\" in inside[1]:
        if kind == "TOML":
            fix = quoted_path(inside[1])
        else:
            fix = 'in JSON \\ begins an escape; write "' + inside[1].replace("\\", "/") + '"'
    elif kind == "TOML" and message == "Invalid value":
        fix = 'text stands in quotes, as in output_name = "cats"; yes and no are true and false'
    if kind == "TOML" and message.startswith("Expected '='") and _YAML_LINE.match(source):
        return ConfigError(
            what="not valid TOML: between a name and its value stands =, not :",
            where=f"{name}:{line}",
            fix="write it as in learning_rate = 1e-5, with text in quotes; YAML is not read",
        )
    return ConfigError(
        what=f"not valid {kind}: {message}",
        where=f"{name}:{line}",
        fix=fix,
        key="not_valid",
        values={"kind": kind, "message": message},
    )
