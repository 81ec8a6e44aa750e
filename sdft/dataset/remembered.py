"""What an earlier index saw of image files, so that the next one need not open them.

An entry holds only as long as size and time of both the image and its caption file are the same.
Where it is kept is another layer's matter: see `ImageMemory`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

YOUNG_FOR_NS = 2_000_000_000
"""A file written less than 2 s ago may change again under the same time: FAT counts in 2 s."""


class Remembered(NamedTuple):
    """One image as it was, with its caption file if it had one."""

    file_bytes: int
    mtime_ns: int
    width: int
    """Upright."""
    height: int
    caption_file: str | None
    """Its name; none where the caption comes from elsewhere or there is none."""
    caption_bytes: int
    caption_mtime_ns: int
    caption: str
    unread_lines: int
    all_lines: bool
    """Whether the caption was read with all its lines."""


NUMBERS = (
    "file_bytes",
    "mtime_ns",
    "caption_bytes",
    "caption_mtime_ns",
    "width",
    "height",
    "unread_lines",
    "all_lines",
)
"""The numbers of an entry, in the order of their columns; the first four are what is compared."""

NUM_COMPARED = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RememberedTable:
    """What is remembered of N images, in columns: a million entries take longer to make."""

    known_N: np.ndarray
    """Whether anything is; else the row's other entries are empty."""
    numbers_N8: np.ndarray
    """int64; columns as in NUMBERS."""
    caption_files: list[str]
    """Names; empty where the caption comes from elsewhere or there is none."""
    captions: list[str]

    @classmethod
    def unknown(cls, num_images: int) -> RememberedTable:
        """Return a table of images that were never seen."""
        return cls(
            known_N=np.zeros(num_images, dtype=bool),
            numbers_N8=np.zeros((num_images, len(NUMBERS)), dtype=np.int64),
            caption_files=[""] * num_images,
            captions=[""] * num_images,
        )

    def row(self, number: int) -> Remembered | None:
        if not self.known_N[number]:
            return None
        numbers = dict(zip(NUMBERS, self.numbers_N8[number].tolist(), strict=True))
        numbers["all_lines"] = bool(numbers["all_lines"])
        return Remembered(
            **numbers,
            caption_file=self.caption_files[number] or None,
            caption=self.captions[number],
        )


def numbers_of(entry: Remembered) -> tuple[int, ...]:
    """Return the numbers of an entry in the order of NUMBERS."""
    return tuple(getattr(entry, name) for name in NUMBERS)


class ImageMemory(Protocol):
    """Where entries are kept between indexes. Used by one thread."""

    def lookup(self, paths: Sequence[str]) -> RememberedTable:
        """Return what was seen of each image file."""

    def note(self, seen: Sequence[tuple[str, Remembered]]) -> None:
        """Keep what was seen now."""


class Forgetful:
    """Keeps nothing."""

    def lookup(self, paths: Sequence[str]) -> RememberedTable:
        return RememberedTable.unknown(len(paths))

    def note(self, seen: Sequence[tuple[str, Remembered]]) -> None:
        pass


def is_settled(mtime_ns: int) -> bool:
    """Tell whether a file is old enough that a change would show in its time."""
    return time.time_ns() - mtime_ns >= YOUNG_FOR_NS
