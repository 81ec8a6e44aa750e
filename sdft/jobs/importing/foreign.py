"""What was understood of another program's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Foreign:
    """Settings by the names of the command line, and what became of the others."""

    program: str
    settings: dict[str, object] = field(default_factory=dict)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    """Tables as in a dataset file; empty where `settings` name the images."""
    mapped: list[tuple[str, str]] = field(default_factory=list)
    """What was written otherwise there, and what it is here."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """What is left out, and why."""
    extra_line: str = ""
    """Further options in the manner of sd-scripts, as text."""

    def take(self, old: str, new: str, value: object) -> None:
        """Note one setting under its name here."""
        self.settings[new] = value
        if old != new:
            self.mapped.append((old, new))

    def drop(self, old: str, why: str) -> None:
        self.refused.append((old, why))


def is_set(value: object) -> bool:
    """Whether a value of a form says anything: empty ones, none, false and zero do not."""
    return value not in (None, "", False, 0, 0.0, "0", "None", "none") and value != []


def pairs(value: str) -> Sequence[str]:
    """Split `weight_decay=0.1 betas=0.9,0.99` as a form's text field holds it."""
    return tuple(part.strip("\"'") for part in value.split() if part.strip("\"'"))


def text_of(values: Mapping[str, Any], name: str) -> str:
    """Return a field as text, empty where it is absent or none."""
    value = values.get(name)
    return "" if value is None else str(value).strip()
