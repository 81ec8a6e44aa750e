"""How slow this machine is just now, for tests with a limit in seconds."""

from __future__ import annotations

import time

USUAL_LOOP_S = 0.35
"""What the loop below takes where such limits are the goal; a shared machine can be much slower."""


def slowness() -> float:
    """Return how many times longer plain Python takes than usual; never less than 1."""
    start_s = time.process_time()
    total = 0
    for number in range(10_000_000):
        total += number
    return max(1.0, (time.process_time() - start_s) / USUAL_LOOP_S)
