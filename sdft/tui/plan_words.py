"""What `sdft plan` says, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdft.language import Words
from sdft.units import format_bytes, format_duration


def plan_rows(result: Mapping[str, Any], words: Words) -> list[tuple[str, str]]:
    """Return names and values; what the plan does not say is left out."""
    rows: list[tuple[str, str]] = []
    for name, value in result.items():
        label = words.known(f"plan.{name}")
        if label == f"plan.{name}" or value is None:
            continue
        if isinstance(value, Mapping):
            rows += [(f"  {words.known(f'plan.{part}')}".replace("plan.", ""), _value(part, one))
                     for part, one in value.items()]  # fmt: skip
        else:
            rows.append((label, _value(name, value)))
    return rows


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if "bytes" in name:
        return format_bytes(value)
    if name.endswith("_s"):
        return format_duration(value)
    return f"{value:,}"
