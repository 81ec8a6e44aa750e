"""What differs between two sets of metadata entries, for showing before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field of one entry, before and after; None where it is absent."""

    key: str
    name: str
    before: str | None
    after: str | None


def changes_between(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> tuple[Change, ...]:
    """Return every field that differs, in the order of `after`."""
    changes = []
    for key in dict.fromkeys([*after, *before]):
        old, new = before.get(key, {}), after.get(key, {})
        if old == new:
            continue
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                change = Change(
                    key=key, name=name, before=_text(old.get(name)), after=_text(new.get(name))
                )
                changes.append(change)
    return tuple(changes)


def changes_text(changes: Sequence[Change]) -> str:
    """Return the changes as lines: the key and the field, what goes, what comes."""
    lines = []
    for change in changes:
        lines.append(f"{change.key} [{change.name}]")
        for sign, text in (("-", change.before), ("+", change.after)):
            lines += [f"{sign} {line}" for line in (text or "").split("\n") if text is not None]
    return "\n".join(lines)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
