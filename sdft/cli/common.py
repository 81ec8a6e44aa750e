"""The options that every command has, for commands whose options Typer reads itself."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
JsonOut = Annotated[
    Path | None, typer.Option("--json-out", metavar="FILE", help="Write that object to a file.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def looked_up(paths: Sequence[Path]) -> list[Path]:
    """Return paths with wildcards looked up, which cmd.exe leaves to the program.

    A real name comes first; a wildcard that fits nothing stays, to be told as it was typed.
    """
    found: list[Path] = []
    for path in paths:
        fitting = [] if path.exists() else sorted(glob.glob(str(path)))
        found += map(Path, fitting) if fitting else [path]
    return found


def same_dashes(name: str) -> str:
    """Make `--json_out` and `--json-out` one option; `name` comes without the dashes in front."""
    return name.replace("_", "-")


CONTEXT: dict[str, Any] = {"token_normalize_func": same_dashes, "max_content_width": 100}
"""Settings of such a command."""


def new_app() -> typer.Typer:
    """Return the Typer that holds the one command of a module."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
