"""What became of the images, counted from `fates.jsonl` without keeping it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NUM_REJECTED_KEPT = 500
MAX_LINE_CHARACTERS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """Counts of a data set's images."""

    num_used: int
    num_rejected: int
    reasons: Mapping[str, int]
    """Of the rejected ones, the most frequent first."""
    buckets: Mapping[tuple[int, int], int]
    """Images by width and height of the bucket, the fullest first."""
    rejected: tuple[tuple[str, str], ...]
    """Path and reason of the first ones."""
    num_held_out: int = 0
    """Measured, not trained on."""


def read_fates(path: Path) -> Fates | None:
    """Count a `fates.jsonl`; None where there is none. Lines that are no fate are passed over."""
    reasons: Counter[str] = Counter()
    buckets: Counter[tuple[int, int]] = Counter()
    rejected: list[tuple[str, str]] = []
    num_used = num_held_out = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(MAX_LINE_CHARACTERS):
                record = _record(line)
                if record.get("fate") == "used":
                    num_used += 1
                    size = record.get("bucket")
                    if isinstance(size, list) and len(size) == 2:
                        buckets[(_whole(size[0]), _whole(size[1]))] += 1
                elif record.get("fate") == "held out":
                    num_held_out += 1
                elif "fate" in record:
                    reason = str(record.get("reason", ""))
                    reasons[reason] += 1
                    if len(rejected) < NUM_REJECTED_KEPT:
                        rejected.append((str(record.get("path", "")), reason))
    except OSError:
        return None
    return Fates(
        num_used=num_used,
        num_rejected=sum(reasons.values()),
        reasons=dict(reasons.most_common()),
        buckets=dict(buckets.most_common()),
        rejected=tuple(rejected),
        num_held_out=num_held_out,
    )


def _record(line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
