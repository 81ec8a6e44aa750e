"""A curve drawn in characters that every terminal has."""

from __future__ import annotations

from collections.abc import Sequence

ROWS = 5


def chart(
    values: Sequence[float], *, bottom: float = 0.0, top: float, end: str, rows: int = ROWS
) -> list[str]:
    """Return the rows of a chart, a column for each value, and an axis that ends with `end`."""
    span = top - bottom or 1.0
    heights = [round((value - bottom) / span * (rows - 1)) for value in values]
    lines = []
    for row in range(rows - 1, -1, -1):
        label = f"{bottom + span * row / (rows - 1):8.2g}"
        marks = "".join("*" if height == row else " " for height in heights)
        lines.append(f"{label} |{marks}".rstrip())
    return [*lines, f"{'':8} +{'-' * len(heights)} {end}"]
