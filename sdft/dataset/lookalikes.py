"""Finds pictures that show the same, whatever their file form, size or quality.

In: the looks of two sets of pictures. Out: the pairs that are alike. A look is a hash of which
neighbouring areas are brighter, and a tiny picture that decides where hashes are close by chance,
as those of plain areas are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HASH_SIDE = 8
"""A hash has 8 x 8 bits. Source: the "difference hash" of N. Krawetz, 2013."""

MAX_BITS_APART = 8
"""Of 64; recompressed, resized or lightly cropped copies stay below, other pictures are at 32."""

TINY_SIDE = 8
MAX_LEVELS_APART = 10.0
"""Mean difference of the tiny pictures, in levels of 256."""

MAX_SHARE_APART = 0.25
"""Root mean square of that difference, as a share of how much a tiny picture differs from its own
mean: what is small on a plain ground differs little from anything else that is."""

PLAIN_LEVELS = 1.5
"""What compression does to a picture that is plain all over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is kept of a picture."""

    bits: int
    mirror_bits: int
    """Of the mirrored picture: areas of one level have no side that is brighter, either way."""
    tiny: bytes
    """TINY_SIDE x TINY_SIDE RGB levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two pictures that show the same."""

    held_out: Path
    train: Path
    kind: str
    """`same file`, `alike` or `mirrored`."""


def look_of(rgb_HWC: np.ndarray) -> Look:
    """Return the look of a picture. Shapes: uint8 [H, W, 3] in."""
    image = Image.fromarray(rgb_HWC)
    grey = np.asarray(image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    tiny = image.resize((TINY_SIDE, TINY_SIDE), Image.Resampling.BOX)
    return Look(
        bits=_brighter_to_the_right(grey),
        mirror_bits=_brighter_to_the_right(grey[:, ::-1]),
        tiny=tiny.tobytes(),
    )


def mirrored(look: Look) -> Look:
    """Return the look of the mirrored picture."""
    tiny_HWC = np.frombuffer(look.tiny, np.uint8).reshape(TINY_SIDE, TINY_SIDE, 3)
    return Look(bits=look.mirror_bits, mirror_bits=look.bits, tiny=tiny_HWC[:, ::-1].tobytes())


def pairs_alike(held_out: Mapping[Path, Look], train: Mapping[Path, Look]) -> Iterator[Pair]:
    """Give each held-out picture with each training picture that shows the same."""
    if not held_out or not train:
        return
    paths = list(train)
    bits_N = np.array([train[path].bits for path in paths], dtype=np.uint64)
    tinies_NP3 = np.stack([_levels(train[path]) for path in paths])
    for path, look in held_out.items():
        found: set[int] = set()
        for kind, seen in (("alike", look), ("mirrored", mirrored(look))):
            apart_N = np.bitwise_count(bits_N ^ np.uint64(seen.bits))
            close = np.flatnonzero(apart_N <= MAX_BITS_APART)
            for number in close[_look_alike(_levels(seen), tinies_NP3[close])].tolist():
                # A picture that is its own mirror image is found twice.
                if number not in found:
                    found.add(number)
                    yield Pair(held_out=path, train=paths[number], kind=kind)


def _look_alike(tiny_P3: np.ndarray, tinies_NP3: np.ndarray) -> np.ndarray:
    """Return which of N tiny pictures, of P pixels each, show the same as one."""
    apart_NP3 = tinies_NP3 - tiny_P3
    spread_N = np.maximum(_spread(tiny_P3), _spread(tinies_NP3))
    rms_N = np.sqrt(np.square(apart_NP3).mean(axis=(1, 2)))
    is_like_N = rms_N <= MAX_SHARE_APART * spread_N + PLAIN_LEVELS
    is_near_N = np.abs(apart_NP3).mean(axis=(1, 2)) <= MAX_LEVELS_APART
    alike_N: np.ndarray = np.logical_and(is_like_N, is_near_N)
    return alike_N


def _spread(tinies_NP3: np.ndarray) -> np.ndarray:
    """Return the root mean square about the mean colour; one picture or N."""
    spread_N: np.ndarray = np.sqrt(tinies_NP3.var(axis=-2).mean(axis=-1))
    return spread_N


def _levels(look: Look) -> np.ndarray:
    return np.frombuffer(look.tiny, np.uint8).astype(np.float32).reshape(-1, 3)


def _brighter_to_the_right(grey_HW: np.ndarray) -> int:
    bits = (grey_HW[:, 1:] > grey_HW[:, :-1]).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)
