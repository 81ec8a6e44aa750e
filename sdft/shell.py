"""Words as one line that a person can copy into this system's shell."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from sdft.windows import is_windows

_MEANT_BY_CMD = frozenset("&|<>^()%,;`'@#${}")
"""Without quotes around them, cmd or PowerShell take these for something else."""


def shell_line(words: Sequence[str]) -> str:
    """Return words as one line: for cmd and PowerShell on Windows, for a POSIX shell elsewhere.

    In a batch file a `%` has to be doubled, which would be wrong at the prompt; so it is not here.
    """
    return windows_line(words) if is_windows() else shlex.join(words)


def windows_line(words: Sequence[str]) -> str:
    r"""Return words as the line that a Windows program splits into the same words.

    `list2cmdline` puts quotes around words with spaces only; `a&b` would start a program `b`.
    """
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    plain = subprocess.list2cmdline([word])
    if plain.startswith('"') or not _MEANT_BY_CMD & set(word):
        return plain
    # A backslash before the closing quote would keep it open; list2cmdline knows how to double it
    # once it has a reason to quote.
    spaced = subprocess.list2cmdline([f"{word} "])
    return _without_last_space(word, spaced)


def _without_last_space(word: str, spaced: str) -> str:
    body = spaced[: -len(' "')]
    trailing = len(word) - len(word.rstrip("\\"))
    return body + "\\" * trailing + '"'
