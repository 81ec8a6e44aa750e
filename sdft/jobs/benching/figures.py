"""A figure as a row, and the memory that a process has taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
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


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def process_peak_bytes() -> int:
    """Return the most main memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: it begins with what the parent process had.
        return 1024 * int(status.read_text("ascii").partition("VmHWM:")[2].split()[0])
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))
