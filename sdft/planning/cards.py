"""What is known of graphics cards: how fast they multiply, and what of their memory is left."""

from __future__ import annotations

from dataclasses import dataclass

CONTEXT_BYTES = 600 << 20
"""What the driver and its libraries take beside torch's own memory; 0.4 to 0.6 GiB is usual."""
SPARE_SHARE = 0.05
"""Of a card's memory that is left free: blocks of several sizes never fill it wholly."""

HALF_TFLOPS = {
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "A6000": 155,
    "A40": 150,
    "RTX 5090": 210,
    "RTX 4090": 165,
    "RTX 4080": 97,
    "RTX 4070": 58,
    "RTX 4060": 44,
    "RTX 3090": 71,
    "RTX 3080": 60,
    "RTX 3070": 41,
    "RTX 3060": 25.5,
    "T4": 65,
}
"""Products in 16 bits without sparsity, sums in float32, in 10^12 a second, by a part of the
card's name; the Ti and Super forms are up to a third faster. Source: NVIDIA's data sheets."""

USUAL_SHARE = {True: 0.33, False: 0.21}
"""Of that speed which a step reaches, compiled or not; measured on an H100 at 512 px."""
FLOAT32_SHARE = 0.25
"""How much slower float32 is, with TF32, at best: as 1 of so many parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A graphics card, or one that is thought of."""

    name: str
    total_bytes: int
    free_bytes: int
    """Before this program takes any."""
    has_bf16: bool = True

    @property
    def usable_bytes(self) -> int:
        """Return what torch can allocate."""
        spare = int(self.total_bytes * SPARE_SHARE)
        return max(0, min(self.free_bytes, self.total_bytes - spare) - CONTEXT_BYTES)


def half_flops(name: str) -> float | None:
    """Return the operations a second of a card in 16 bits, None for one that is not known."""
    for part, tera in sorted(HALF_TFLOPS.items(), key=lambda entry: -len(entry[0])):
        if part.lower() in name.lower():
            return tera * 1e12
    return None


def seconds_a_step(name: str, flops: int, *, half: bool, compiled: bool) -> float | None:
    """Return how long a step takes that computes so much, None for a card that is not known."""
    peak = half_flops(name)
    if peak is None:
        return None
    share = USUAL_SHARE[compiled] * (1.0 if half else FLOAT32_SHARE)
    return flops / (peak * share)
