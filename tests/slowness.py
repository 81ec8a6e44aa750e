"""How slow this machine is just now, for tests with a limit in seconds."""

from __future__ import annotations

import time

USUAL_LOOP_S = 0.35
"""What the loop below takes at the speed that limits are meant for.

Cleaning 100,000 entries took 17 to 23 times as long as this loop: 7 s of the 10 that it may take.
"""


def slowness() -> float:
    """Return how many times longer plain Python takes than usual; never less than 1."""
    start_s = time.process_time()
    total = 0
    for number in range(10_000_000):
        total += number
    return max(1.0, (time.process_time() - start_s) / USUAL_LOOP_S)
