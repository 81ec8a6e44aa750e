"""What this machine could train on: the card that NVIDIA's program names, or how fast its
processor is. Needs no torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

from sdft.jobs.environment import ask_nvidia_smi
from sdft.planning.cards import Card

BYTES_PER_MIB = 1 << 20
BF16_SINCE = 8.0
"""Compute capability from which cards multiply in bf16: Ampere."""

PROBE_SIZE = 1024
PROBE_ROUNDS = 6
CONVOLUTION_SHARE = 0.55
"""Of the speed of one large product that a step's many small ones reach; measured on two cores."""
UPDATE_BYTES = 56
"""Read and written for each weight in float32: 28 by AdamW, 12 by clipping, 16 by gradients that
are made anew in each step."""


def card_found() -> Card | None:
    """Return the card that a run would take here, None where there is none to be seen."""
    rows = ask_nvidia_smi("memory.total", "memory.free", "compute_cap", "name")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    number = int(visible) if visible.isdecimal() else 0
    if visible == "-1" or number >= len(rows):
        return None
    total, free, capability, name = rows[number]
    if not (total.isdecimal() and free.isdecimal()):
        return None
    return Card(
        name=name,
        total_bytes=int(total) * BYTES_PER_MIB,
        free_bytes=int(free) * BYTES_PER_MIB,
        has_bf16=_number(capability) >= BF16_SINCE,
    )


def imagined_card(total_bytes: int) -> Card:
    """Return a card of a size that was named."""
    return Card(name="", total_bytes=total_bytes, free_bytes=total_bytes)


def cpu_seconds_a_step(flops: int, trained_weights: int) -> float:
    """Return how long a step that computes so much would take on this processor, in float32.

    Measures for half a second how fast it multiplies and copies.
    """
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((PROBE_SIZE, PROBE_SIZE), dtype=np.float32)
    result, other = np.empty_like(matrix), np.empty_like(matrix)
    product_s = _best_s(lambda: np.matmul(matrix, matrix, out=result))
    copy_s = _best_s(lambda: np.copyto(other, matrix))
    multiplies = 2 * PROBE_SIZE**3 / product_s * CONVOLUTION_SHARE
    moves = 2 * matrix.nbytes / copy_s
    return flops / multiplies + trained_weights * UPDATE_BYTES / moves


def _best_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(PROBE_ROUNDS):
        start_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - start_s)
    return min(times)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
