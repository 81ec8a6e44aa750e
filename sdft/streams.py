"""Randomness with an address.

Every random choice about an item is drawn from a stream of its own, named by the seed and by
what the choice is about. So a value never depends on which worker, process, order or resumed run
draws it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Names one use of one item."""

    seed: int
    epoch: int
    """Counts from 1."""
    dataset: int
    subset: int
    key: str
    """The item's path relative to its folder, with `/` between the parts."""
    repeat: int
    """0 for the first use of the item in the epoch, then 1, 2, ..."""

    def seed64(self, purpose: str) -> int:
        """Return a 63-bit seed for one purpose (`noise`, `timestep`, `flip`, ...)."""
        return seed64(
            self.seed, self.epoch, self.dataset, self.subset, self.key, self.repeat, purpose
        )

    def stream(self, purpose: str) -> random.Random:
        """Return Python's generator for one purpose."""
        return random.Random(self.seed64(purpose))


def seed64(*parts: object) -> int:
    """Return a seed in 0 .. 2**63 - 1 that depends on every part and on their borders."""
    digest = blake2b(digest_size=8)
    for part in parts:
        encoded = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


def stream(*parts: object) -> random.Random:
    """Return Python's generator for an address made of any parts."""
    return random.Random(seed64(*parts))
