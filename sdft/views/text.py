"""Text that is safe to show on a terminal."""

from __future__ import annotations

_DIRECTION = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Marks that turn the direction of writing: a name with them would read as another name."""


def visible(text: str) -> str:
    """Return text from a file or a person with its control characters shown, not obeyed.

    Line ends and tabs stay. A lone surrogate, as in a file name that is not UTF-8, is shown too.
    """
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or 32 <= code < 127:
        return character
    if code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000 or character in _DIRECTION:
        return character.encode("unicode_escape").decode("ascii")
    return character
