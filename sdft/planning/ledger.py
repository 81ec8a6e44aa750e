"""Counts the bytes that are held, by what holds them, and remembers the largest sum."""

from __future__ import annotations

from dataclasses import dataclass, field

WEIGHTS = "weights"
GRADIENTS = "gradients"
OPTIMIZER = "optimizer"
ACTIVATIONS = "activations"
TEMPORARIES = "temporaries"
PARTS = (WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, TEMPORARIES)

BLOCK_BYTES = 512
"""torch's allocators hand out multiples of this on a GPU; on a CPU of 64, which is no matter."""


@dataclass(slots=True)
class Ledger:
    """The bytes held now and at the worst moment so far."""

    held: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    total: int = 0
    peak: int = 0
    at_peak: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))

    def take(self, part: str, num_bytes: int) -> None:
        self.held[part] += num_bytes
        self.total += num_bytes
        if self.total > self.peak:
            self.peak = self.total
            self.at_peak = dict(self.held)

    def give(self, part: str, num_bytes: int) -> None:
        self.held[part] -= num_bytes
        self.total -= num_bytes

    def touch(self, part: str, num_bytes: int) -> None:
        """Hold bytes for an instant."""
        self.take(part, num_bytes)
        self.give(part, num_bytes)


class Storage:
    """Bytes that are held as long as something refers to them."""

    __slots__ = ("_ledger", "num_bytes", "part")

    def __init__(self, ledger: Ledger, part: str, num_bytes: int) -> None:
        self.num_bytes = -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
        self.part = part
        self._ledger = ledger
        ledger.take(part, self.num_bytes)

    def __del__(self) -> None:
        self._ledger.give(self.part, self.num_bytes)
