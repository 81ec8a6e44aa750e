"""What an earlier index saw of image files, so that the next one need not open them.

An entry holds only as long as size and time of both the image and its caption file are the same.
Where it is kept is another layer's matter: see `ImageMemory`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

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


class ImageMemory(Protocol):
    """Where entries are kept between indexes. Used by one thread."""

    def lookup(self, paths: Sequence[str]) -> list[Remembered | None]:
        """Return what was seen of each image file."""

    def note(self, seen: Sequence[tuple[str, Remembered]]) -> None:
        """Keep what was seen now."""


class Forgetful:
    """Keeps nothing."""

    def lookup(self, paths: Sequence[str]) -> list[Remembered | None]:
        return [None] * len(paths)

    def note(self, seen: Sequence[tuple[str, Remembered]]) -> None:
        pass


def is_same_file(path: str, file_bytes: int, mtime_ns: int) -> bool:
    """Tell whether a file still has this size and time.

    Raises: OSError where it is not there.
    """
    status = os.stat(path)
    return status.st_size == file_bytes and status.st_mtime_ns == mtime_ns


def is_settled(mtime_ns: int) -> bool:
    """Tell whether a file is old enough that a change would show in its time."""
    return time.time_ns() - mtime_ns >= YOUNG_FOR_NS
