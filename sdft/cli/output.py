"""How a command's result and its errors are printed: results on stdout, all else on stderr."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sdft.errors import SdftError
from sdft.views.text import visible

if TYPE_CHECKING:
    from sdft.language import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What `--json`, `--json-out` and `--quiet` ask for."""

    json: bool = False
    json_out: Path | None = None
    quiet: bool = False


def deliver(result: Mapping[str, Any], text: str, output: Output) -> None:
    """Write a command's result where it was asked for.

    `text` is for people and is printed unless `--json` or `--quiet` is given. JSON is ASCII on one
    line; a number that JSON lacks (not a number, infinity) becomes null.
    """
    import json  # with files.py 10 ms, which a --help need not pay

    from sdft.files import write_json

    safe = json_safe(result)
    if output.json_out is not None:
        write_json(output.json_out, safe)
    if output.json:
        print(json.dumps(safe))
    elif text and not output.quiet:
        print(text)
    sys.stdout.flush()


def json_safe(value: Any) -> Any:
    """Return `value` in the types that JSON has."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [json_safe(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def spoken(stream: TextIO) -> Words:
    """Return the words of the language to print in on this stream."""
    from sdft.language import Words, language_for

    return Words(language_for(os.environ, stream.encoding))


def print_problems(error: SdftError, *, as_json: bool = False) -> None:
    """Print every problem of an error on stderr; with `as_json` as one object on stdout too.

    What is printed is in the person's language, the object in English.
    """
    words = spoken(sys.stderr)
    for problem in map(words.problem, error.problems):
        what = f"{problem.where}: {problem.what}" if problem.where else problem.what
        print_error(what, problem.fix, label=words("common.error"))
    if as_json:
        import json

        record = {
            "error": type(error).__name__,
            "exit_code": error.exit_code,
            "problems": [problem.as_json() for problem in error.problems],
        }
        print(json.dumps(record))


def print_error(what: str, fix: str = "", *, label: str = "error") -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text(f"{label}: ", style="bold red").append(
        visible(_process() + what), style="not bold default"
    )
    if fix:
        line.append(f"\n  -> {visible(fix)}", style="not bold default")
    # Without soft wrapping a long path would be cut into pieces that cannot be copied.
    Console(stderr=True, highlight=False, soft_wrap=True).print(line)


def _process() -> str:
    """Return which process of several it is that speaks, unless it is the main one."""
    rank, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return f"process {rank} of {size}: " if size and rank not in ("", "0") else ""
