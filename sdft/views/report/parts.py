"""The tables of a report: what a run was, its settings, its images, where it ran.

In: a RunRecord. Out: rows of text, not yet markup.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings
from sdft.events import RunFinished
from sdft.units import format_bytes, format_duration
from sdft.views.fates import Fates
from sdft.views.run_record import RunRecord, shown

NUM_BUCKETS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table."""

    name: str
    value: str
    kind: str = ""
    """`warning`, `error` or nothing."""


def head_rows(record: RunRecord) -> list[Row]:
    """Return what a person asks first."""
    summary, state = record.snapshot.summary, record.state
    run = summary.run
    rows = [Row(name="state", value=state.name + (f": {state.reason}" if state.reason else ""))]
    if run is not None:
        rows += [
            Row(name="steps", value=f"{summary.step} of {run.steps}"),
            Row(name="images", value=f"{run.images}, {run.effective_batch} a step"),
            Row(name="model", value=run.model),
            Row(name="device", value=run.device),
            Row(name="command", value=run.command),
        ]
    if summary.loss.mean is not None:
        rows.append(Row(name="loss", value=f"{summary.loss.mean:.4f}, mean of about 50 steps"))
    if summary.validation is not None:
        measured = summary.validation
        rows.append(
            Row(
                name="held-out images",
                value=f"{measured.loss:.4f} at step {measured.step}; training images"
                f" {measured.train_loss:.4f}",
            )
        )
    if isinstance(summary.end, RunFinished):
        rows.append(Row(name="took", value=format_duration(summary.end.duration_s)))
        rows.append(Row(name="checkpoint", value=summary.end.checkpoint))
    started_s = next((line.time_s for line in record.snapshot.log), None)
    if started_s is not None:
        stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started_s))
        rows.append(Row(name="first word", value=stamp))
    return rows


def setting_rows(record: RunRecord) -> tuple[list[Row], list[Row]]:
    """Return the settings that are not as they are by default, and those that are."""
    defaults = {one.name: one.default for one in settings_of(TrainingSettings)}
    changed: list[Row] = []
    others: list[Row] = []
    for name, value in record.settings.items():
        is_default = name in defaults and shown(value) == shown(defaults[name])
        (others if is_default else changed).append(Row(name=name, value=shown(value)))
    return changed, others


def fate_rows(fates: Fates) -> list[Row]:
    """Return how many images were used, and in which sizes."""
    rows = [
        Row(name="used", value=str(fates.num_used)),
        Row(name="held out", value=str(fates.num_held_out)),
        Row(name="not used", value=str(fates.num_rejected)),
    ]
    rows = [row for row in rows if row.name == "used" or row.value != "0"]
    rows += [
        Row(name=f"not used: {reason}", value=str(count)) for reason, count in fates.reasons.items()
    ]
    sizes = list(fates.buckets.items())
    rows += [
        Row(name=f"{width}x{height}", value=str(count))
        for (width, height), count in sizes[:NUM_BUCKETS]
    ]
    if len(sizes) > NUM_BUCKETS:
        rows.append(Row(name=f"{len(sizes) - NUM_BUCKETS} more sizes", value=""))
    return rows


def environment_rows(record: RunRecord) -> list[Row]:
    """Return what the run ran on."""
    rows = []
    for name, value in record.environment.items():
        is_size = name.endswith("_bytes") and isinstance(value, int)
        words = format_bytes(value) if is_size else shown(value)
        rows.append(Row(name=name.removesuffix("_bytes") if is_size else name, value=words))
    return rows


def notice_rows(record: RunRecord) -> list[Row]:
    """Return the warnings and errors, each once with how often it came."""
    counts = Counter(
        (notice.severity, notice.message)
        for notice in record.snapshot.summary.notices
        if notice.severity in ("warning", "error")
    )
    return [
        Row(
            name=severity,
            value=message if count == 1 else f"{message} ({count} times)",
            kind=severity,
        )
        for (severity, message), count in counts.items()
    ]
