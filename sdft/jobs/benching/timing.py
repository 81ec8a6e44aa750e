"""Takes times and memory on any device, and puts figures into rows."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One figure, perhaps beside another one that was taken in the same run."""

    name: str
    value: float
    unit: str
    against: str = ""
    """What it stands beside, in words."""
    ratio: float | None = None
    """Of the value to that of `against`."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


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


def median_s(times: list[float]) -> float:
    return median(times)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Return the most bytes that tensors took since `reset_peak`; none on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def process_peak_bytes() -> int:
    """Return the most main memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: it begins with what the parent process had.
        return 1024 * int(status.read_text("ascii").partition("VmHWM:")[2].split()[0])
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))
