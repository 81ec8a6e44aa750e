"""Tells when the memory that training takes is not what was planned. No torch here.

In: the planned peak of each bucket, the measured peak after each step. Out: one warning at most.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdft.events import Emit, Notice
from sdft.units import format_bytes

TOLERANCE = 0.10
"""Of the plan; the truth may be so much above or below it."""

Bucket = tuple[int, int]


class MemoryWatch:
    """Compares until the plan was once found right or wrong in its worst bucket.

    `planned` gives bytes by bucket. Measured is the largest allocation since the first step, so it
    is held against the worst bucket among those that were trained on since.
    """

    def __init__(self, planned: Mapping[Bucket, int], emit: Emit) -> None:
        self._planned = planned
        self._emit = emit
        self._num_steps = 0
        self._expected = 0
        self._worst = max(planned.values(), default=0)
        self._done = not planned

    def after_step(self, bucket: Bucket, measured_bytes: int) -> None:
        """Look at one step. Below the plan counts only after the first: it makes the states."""
        if self._done:
            return
        self._num_steps += 1
        planned = self._planned.get(bucket, 0)
        self._expected = max(self._expected, planned)
        if measured_bytes > (1 + TOLERANCE) * self._expected:
            self._tell(measured_bytes)
        elif self._num_steps > 1 and planned == self._worst:
            if measured_bytes < (1 - TOLERANCE) * self._expected:
                self._tell(measured_bytes)
            self._done = True

    def stop(self) -> None:
        """Compare no more: the peak now holds what else was done on the device."""
        self._done = True

    def _tell(self, measured_bytes: int) -> None:
        self._done = True
        off = measured_bytes / self._expected - 1 if self._expected else 0.0
        message = (
            f"training takes {format_bytes(measured_bytes)} of the device's memory, and"
            f" {format_bytes(self._expected)} were planned ({off:+.0%}); please report it with the"
            " run's config.toml and environment.json"
        )
        self._emit(Notice(severity="warning", topic="memory plan", message=message))
