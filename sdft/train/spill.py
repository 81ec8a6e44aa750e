"""Tells when a GPU's memory has run over into main memory.

Drivers under Windows let that happen without a word, and a step then takes minutes.
"""

from __future__ import annotations

from collections import deque
from statistics import median

import torch

from sdft.events import Emit, Notice
from sdft.units import format_bytes

NUM_DURATIONS = 50
MIN_DURATIONS = 10
SLOW_FACTOR = 3.0
FULL_SHARE = 0.99


def looks_spilled(
    *, reserved_bytes: int, free_bytes: int, total_bytes: int, duration_s: float, usual_s: float
) -> bool:
    """Tell whether memory ran over: more is held than there is, or all is held and all is slow."""
    if reserved_bytes > total_bytes:
        return True
    full = free_bytes < (1 - FULL_SHARE) * total_bytes
    return full and usual_s > 0 and duration_s > SLOW_FACTOR * usual_s


class SpillWatch:
    """Looks after each step of a GPU; says what it sees once."""

    def __init__(self, device: torch.device, emit: Emit) -> None:
        self._device = device
        self._emit = emit
        self._durations_s: deque[float] = deque(maxlen=NUM_DURATIONS)
        self._said = False

    def after_step(self, duration_s: float) -> None:
        if self._said or self._device.type != "cuda":
            return
        usual_s = median(self._durations_s) if len(self._durations_s) >= MIN_DURATIONS else 0.0
        self._durations_s.append(duration_s)
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._device)
        reserved_bytes = torch.cuda.memory_reserved(self._device)
        if looks_spilled(
            reserved_bytes=reserved_bytes,
            free_bytes=free_bytes,
            total_bytes=total_bytes,
            duration_s=duration_s,
            usual_s=usual_s,
        ):
            self._said = True
            message = (
                f"the GPU's memory runs over into main memory: {format_bytes(reserved_bytes)} are"
                f" held of {format_bytes(total_bytes)}, and this step took {duration_s:.1f} s;"
                " lower the batch size, or set gradient_checkpointing"
            )
            self._emit(Notice(severity="warning", topic="spill", message=message))
