"""Captions with weights, as the web UI writes them.

`(x)` weighs x by 1.1, `[x]` by 1 / 1.1, `(x:1.3)` by 1.3; brackets within brackets multiply. A
backslash makes the bracket behind it plain text. Brackets that are never closed count to the end,
and those that were never opened are plain text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BRACKET_FACTOR = 1.1
"""What one pair of round brackets multiplies by. Source: sd-scripts and the web UI."""


@dataclass(frozen=True, slots=True)
class WeightedText:
    """A stretch of a caption whose words share one weight."""

    text: str
    weight: float
    start: int
    """Of its first character in the caption, brackets counted."""


_TOKEN = re.compile(
    r"\\(?P<escaped>[()\[\]\\])"
    r"|(?P<backslash>\\)"
    r"|:\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))\s*(?P<weighted_end>\))"
    r"|(?P<bracket>[()\[\]])"
    r"|(?P<plain>[^\\()\[\]:]+|:)"
)


def parse_weights(caption: str) -> list[WeightedText]:
    """Return a caption's stretches in order, without the brackets; empty stretches are left out."""
    pieces: list[WeightedText] = []
    weights: list[float] = []
    opened: list[tuple[str, int]] = []
    """Each open bracket with the number of pieces before it."""

    def add(text: str, start: int) -> None:
        pieces.append(WeightedText(text, 1.0, start))
        weights.append(1.0)

    def close(bracket: str, factor: float) -> bool:
        if not any(kind == bracket for kind, _ in opened):
            return False
        # The innermost of its kind: an unclosed bracket of the other kind within stays open.
        position = max(n for n, (kind, _) in enumerate(opened) if kind == bracket)
        _, first = opened.pop(position)
        _multiply(weights, first, factor)
        return True

    for match in _TOKEN.finditer(caption):
        start = match.start()
        if match["escaped"]:
            add(match["escaped"], start)
        elif match["weighted_end"]:
            if not close("(", float(match["number"])):
                add(match[0], start)
        elif match["bracket"] in ("(", "["):
            opened.append((match["bracket"], len(pieces)))
        elif match["bracket"]:
            round_ = match["bracket"] == ")"
            factor = BRACKET_FACTOR if round_ else 1 / BRACKET_FACTOR
            if not close("(" if round_ else "[", factor):
                add(match["bracket"], start)
        elif match["plain"]:
            add(match["plain"], start)
    for kind, first in opened:
        _multiply(weights, first, BRACKET_FACTOR if kind == "(" else 1 / BRACKET_FACTOR)
    return _joined(pieces, weights)


def _multiply(weights: list[float], first: int, factor: float) -> None:
    for position in range(first, len(weights)):
        weights[position] *= factor


def _joined(pieces: list[WeightedText], weights: list[float]) -> list[WeightedText]:
    """Put neighbours of one weight together, since words must not be cut where nothing changes."""
    joined: list[WeightedText] = []
    for piece, weight in zip(pieces, weights, strict=True):
        if joined and joined[-1].weight == weight:
            last = joined[-1]
            joined[-1] = WeightedText(last.text + piece.text, weight, last.start)
        else:
            joined.append(WeightedText(piece.text, weight, piece.start))
    return joined
