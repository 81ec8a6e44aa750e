"""Replaces box, block and braille glyphs by ASCII on the way to the terminal.

Some terminals, mostly with East Asian fonts, draw these glyphs two columns wide and so tear every
line. Text from people and files is left as it is.
"""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_HORIZONTAL = "─━═╌╍┄┅┈┉╴╶╸╺╼╾▔▁▂▃"
_VERTICAL = "│┃║╎╏┆┇┊┋╵╷╹╻▏▎▍▌▐▕"
_FULL = "█▇▆▅▄▀▉▊▋▓"
_PLAIN = {"░": ".", "▒": ":", "…": "~", "·": ".", "•": "*", "●": "*", "○": "o", "■": "#"}
_PLAIN |= {"▲": "^", "▼": "v", "▶": ">", "◀": "<", "▸": ">", "▾": "v", "►": ">", "◄": "<"}
_PLAIN |= {"↑": "^", "↓": "v", "→": ">", "←": "<", "⏎": "|", "✓": "x", "✗": "-", "⭘": "o", "◉": "*"}
_PLAIN |= {"☰": "=", "⌫": "<", "⌃": "^", "⇧": "^", "▪": "*"}
_PLAIN |= {chr(0x2571): "/", chr(0x2572): "\\"}


def _table() -> dict[int, str]:
    table: dict[int, str] = dict.fromkeys(range(0x2500, 0x2580), "+")
    table |= dict.fromkeys(range(0x2580, 0x25A0), "#")
    table |= dict.fromkeys(range(0x2801, 0x2900), "*") | {0x2800: " "}
    # Sextants and other blocks of the newer terminals' borders.
    table |= dict.fromkeys(range(0x1FB00, 0x1FBFA), "#")
    for glyphs, plain in ((_HORIZONTAL, "-"), (_VERTICAL, "|"), (_FULL, "#")):
        table |= {ord(glyph): plain for glyph in glyphs}
    return table | {ord(glyph): plain for glyph, plain in _PLAIN.items()}


TABLE = _table()


@lru_cache(4096)
def plain(text: str) -> str:
    """Return the text with its drawing glyphs in ASCII; every other character stays."""
    return text if text.isascii() else text.translate(TABLE)


class AsciiFilter(LineFilter):
    """Applied by Textual to every line that it sends to the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(plain(text), style, control) for text, style, control in segments]
