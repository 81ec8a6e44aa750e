"""All that a run's events come to: the numbers, the curves, the log.

`History` takes bytes of `events.jsonl` and keeps a bounded amount of what they say. `RunReader`
feeds it: at once with the head, some lines of the middle and the tail of a long file, so that a
screen stands within a blink, then with every line of it, then with what the run writes on.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.events import (
    EpochDone,
    Event,
    EventLine,
    RunStarted,
    SampleSaved,
    StepDone,
    ValidationDone,
)
from sdft.views.event_file import EventFile, spread
from sdft.views.lines import line_of
from sdft.views.series import Curve
from sdft.views.summary import Summary, reduce, reduce_steps

STEP_CURVES = ("loss", "lr", "grad_norm", "images_per_s", "step_s", "memory_bytes")
OTHER_CURVES = ("validation", "validation_low", "validation_high", "validation_train", "epoch_loss")
CURVES = (*STEP_CURVES, *OTHER_CURVES)

NUM_LOG_LINES = 2_000
NUM_SAMPLES = 2_000

HEAD_BYTES = 65_536
TAIL_BYTES = 262_144
NUM_GLIMPSES = 1_024
GLIMPSE_BYTES = 1_024
"""About three lines: enough to hold a whole one."""

SLICE_BYTES = 65_536
"""Taken apart at once, in about a millisecond; another thread waits no longer for its turn."""

_STEP = re.compile(
    rb'\{"event": "StepDone", "time": ([-+.\deE]+), "step": (\d+), "epoch": (\d+), "loss": ([^,]+),'
    rb' "lr": ([^,]+), "bucket": \[(\d+), (\d+)\], "grad_norm": ([^,]+), "items": (\d+),'
    rb' "duration_s": ([^,]+), "memory_bytes": ([^,}]+)\}'
)
"""What EventLine.write makes of a StepDone; any other spelling is read as JSON, more slowly."""

_Row = tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    time_s: float
    """`info`, `warning` or `error`."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a screen draws; never changes."""

    summary: Summary
    curves: dict[str, Curve]
    log: tuple[LogLine, ...]
    samples: tuple[SampleSaved, ...]
    """In the order of their steps."""
    num_events: int
    share_read: float
    """0 to 1: how much of the file is in it."""


class History:
    """Takes lines, keeps what they come to."""

    def __init__(self) -> None:
        self.summary = Summary()
        self.curves = {name: Curve() for name in CURVES}
        self.log: deque[LogLine] = deque(maxlen=NUM_LOG_LINES)
        self.samples: deque[SampleSaved] = deque(maxlen=NUM_SAMPLES)
        self.num_events = 0

    def take(self, lines: bytes) -> None:
        """Add whole lines of `events.jsonl`."""
        rows: list[_Row] = []
        for line in lines.splitlines():
            match = _STEP.fullmatch(line)
            if match is not None:
                rows.append(match.groups())
                continue
            self._take_rows(rows)
            rows = []
            found = EventLine.read(line.decode("utf-8", "replace"))
            if found is not None:
                self._take_event(*found)
        self._take_rows(rows)

    def glimpse(self, lines: bytes) -> None:
        """Add the first step of some lines to the curves only."""
        match = _STEP.search(lines)
        if match is not None:
            with contextlib.suppress(ValueError, OverflowError):
                self._extend_curves([match.groups()])

    def snapshot(self, share_read: float) -> Snapshot:
        return Snapshot(
            summary=self.summary,
            curves={name: curve.copy() for name, curve in self.curves.items()},
            log=tuple(self.log),
            samples=tuple(self.samples),
            num_events=self.num_events,
            share_read=share_read,
        )

    def _take_rows(self, rows: Sequence[_Row]) -> None:
        if not rows:
            return
        try:
            last = _step_of(rows[-1])
            losses = [float(row[3]) for row in rows]
            items = [int(row[8]) for row in rows]
            durations_s = [float(row[9]) for row in rows]
            self._extend_curves(rows)
        except (ValueError, OverflowError):
            # Looks like ours but holds no number, or one without end; nothing can be said of it.
            return
        self.num_events += len(rows)
        self.summary = reduce_steps(self.summary, losses, items, durations_s, last)

    def _extend_curves(self, rows: Sequence[_Row]) -> None:
        steps = [int(row[1]) for row in rows]
        self._extend("loss", steps, [row[3] for row in rows])
        self._extend("lr", steps, [row[4] for row in rows])
        self._extend("grad_norm", steps, [row[7] for row in rows])
        self._extend("step_s", steps, [row[9] for row in rows])
        self._extend("memory_bytes", steps, [row[10] for row in rows])
        speeds = [
            int(row[8]) / duration_s if (duration_s := float(row[9])) > 0 else float("nan")
            for row in rows
        ]
        self._extend_numbers("images_per_s", steps, speeds)

    def _extend(self, name: str, steps: Sequence[int], words: Sequence[bytes]) -> None:
        numbers = [float("nan") if word == b"null" else float(word) for word in words]
        self._extend_numbers(name, steps, numbers)

    def _extend_numbers(self, name: str, steps: Sequence[int], numbers: Sequence[float]) -> None:
        curve = self.curves[name]
        start = 0
        # A resumed run does steps again: there the numbers fall back.
        for index in range(1, len(steps)):
            if steps[index] <= steps[index - 1]:
                curve.extend(steps[start:index], numbers[start:index])
                start = index
        curve.extend(steps[start:], numbers[start:])

    def _take_event(self, time_s: float, event: Event) -> None:
        self.num_events += 1
        try:
            self.summary = reduce(self.summary, time_s, event)
            self._take_curves(event)
            text = None if isinstance(event, StepDone) else line_of(event)
        except (TypeError, ValueError, AttributeError, OverflowError):
            # A line whose fields have other types than ours, from a foreign or damaged file.
            return
        if text is not None:
            self.log.append(LogLine(time_s=time_s, text=text))

    def _take_curves(self, event: Event) -> None:
        match event:
            case StepDone():
                rate = event.items / event.duration_s if event.duration_s > 0 else None
                values = {
                    "loss": event.loss,
                    "lr": event.lr,
                    "grad_norm": event.grad_norm,
                    "images_per_s": rate,
                    "step_s": event.duration_s,
                    "memory_bytes": event.memory_bytes,
                }
            case ValidationDone():
                values = {
                    "validation": event.loss,
                    "validation_low": event.loss_low,
                    "validation_high": event.loss_high,
                    "validation_train": event.train_loss,
                }
            case EpochDone():
                values = {"epoch_loss": event.loss}
            case RunStarted():
                self._cut(event.first_step)
                return
            case SampleSaved():
                self.samples.append(event)
                return
            case _:
                return
        for name, value in values.items():
            if value is not None:
                self.curves[name].add(event.step, value)

    def _cut(self, first_step: int) -> None:
        """A process goes on at `first_step`: what a former one did from there on does not count."""
        for curve in self.curves.values():
            curve.cut(first_step)
        kept = [sample for sample in self.samples if sample.step < first_step]
        self.samples = deque(kept, maxlen=NUM_SAMPLES)


def _step_of(row: _Row) -> StepDone:
    return StepDone(
        step=int(row[1]),
        epoch=int(row[2]),
        loss=float(row[3]),
        lr=float(row[4]),
        bucket=(int(row[5]), int(row[6])),
        grad_norm=None if row[7] == b"null" else float(row[7]),
        items=int(row[8]),
        duration_s=float(row[9]),
        memory_bytes=None if row[10] == b"null" else int(row[10]),
    )


class RunReader:
    """Reads one run's events, in slices, and shows the best picture there is at any time."""

    def __init__(self, events_file: Path) -> None:
        self._path = events_file
        self._begin()

    def _begin(self) -> None:
        self._file = EventFile(self._path)
        self._history = History()
        self._preview: tuple[EventFile, History] | None = None
        size_bytes = self._file.size_bytes()
        if size_bytes > HEAD_BYTES + TAIL_BYTES + NUM_GLIMPSES * GLIMPSE_BYTES:
            self._preview = _previewed(self._path, size_bytes)

    def advance(self, num_slices: int = 16) -> bool:
        """Read on; return whether anything is new, or was found to be another run's."""
        if self._file.was_rewritten():
            self._begin()
            return True
        changed = False
        if self._preview is not None:
            file, history = self._preview
            if new := file.next_lines(SLICE_BYTES):
                history.take(new)
        for _ in range(num_slices):
            lines = self._file.next_lines(SLICE_BYTES)
            if not lines:
                self._preview = None
                break
            self._history.take(lines)
            changed = True
        return changed

    @property
    def is_behind(self) -> bool:
        """Whether older lines are still being read."""
        return self._preview is not None

    def snapshot(self) -> Snapshot:
        size_bytes = self._file.size_bytes()
        if self._preview is None:
            return self._history.snapshot(1.0)
        share = self._file.position / size_bytes if size_bytes else 1.0
        return self._preview[1].snapshot(min(share, 0.99))


def _previewed(path: Path, size_bytes: int) -> tuple[EventFile, History]:
    file, history = EventFile(path), History()
    history.take(file.lines_at(0, HEAD_BYTES))
    for position in spread(HEAD_BYTES, size_bytes - TAIL_BYTES, NUM_GLIMPSES):
        history.glimpse(file.lines_at(position, GLIMPSE_BYTES))
    file.skip_to(size_bytes - TAIL_BYTES)
    while lines := file.next_lines(SLICE_BYTES):
        history.take(lines)
    return file, history
