"""Takes times and memory of steps on any device."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch


def step_times_s(
    step: Callable[[int], object], *, num_steps: int, warm_up: int, device: torch.device
) -> list[float]:
    """Return the seconds of each step after the first ones; on a GPU by its own clock.

    The device is not waited for between the steps: each can be prepared while the last one runs.
    """
    for number in range(warm_up):
        step(number)
    if device.type != "cuda":
        times = []
        for number in range(num_steps):
            start_s = time.perf_counter()
            step(warm_up + number)
            times.append(time.perf_counter() - start_s)
        return times
    torch.cuda.synchronize(device)
    event: Any = torch.cuda.Event
    marks = [event(enable_timing=True) for _ in range(num_steps + 1)]
    marks[0].record()
    for number in range(num_steps):
        step(warm_up + number)
        marks[number + 1].record()
    torch.cuda.synchronize(device)
    return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(marks)]


def peak_bytes(device: torch.device) -> int | None:
    """Return the most bytes that tensors took since `reset_peak`; none on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
