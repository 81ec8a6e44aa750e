"""`events.jsonl` as it grows under a reader: whole lines only, and a word when it was rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GUARD_BYTES = 256
"""The end of what was read is compared before more is read, so that a file which a resumed run cut
and wrote on is not taken for the old one grown."""

MAX_LINE_BYTES = 1 << 20
"""A longer line is no event; it is passed over in pieces, so memory stays bounded."""


class EventFile:
    """Reads on from where it stopped.

    A file that is absent, locked or unreadable is an empty one for the time being.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._guard = b""
        self._identity: tuple[int, int] | None = None

    @property
    def position(self) -> int:
        """How many bytes were taken; always the end of a line."""
        return self._position

    def size_bytes(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def was_rewritten(self) -> bool:
        """Tell whether what was read so far is no longer what the file begins with."""
        try:
            status = self._path.stat()
            identity = (status.st_dev, status.st_ino)
            if self._identity is None:
                self._identity = identity
            if identity != self._identity or status.st_size < self._position:
                return True
            return self._read(self._position - len(self._guard), len(self._guard)) != self._guard
        except FileNotFoundError:
            return self._position > 0
        except OSError:
            return False

    def skip_to(self, position: int) -> None:
        """Go on at the first line that begins at `position` or later."""
        try:
            start = max(position - 1, 0)
            piece = self._read(start, MAX_LINE_BYTES) if position else b"\n"
        except OSError:
            return
        newline = piece.find(b"\n")
        self._position = start + newline + 1 if position and newline >= 0 else position
        self._guard = b""

    def lines_at(self, position: int, num_bytes: int) -> bytes:
        """Return the whole lines within `num_bytes` from `position` on, without moving on."""
        try:
            piece = self._read(position, num_bytes)
        except OSError:
            return b""
        first = piece.find(b"\n") + 1 if position else 0
        return piece[first : piece.rfind(b"\n") + 1]

    def next_lines(self, num_bytes: int) -> bytes:
        """Return the next whole lines, about `num_bytes` of them; empty where there are none."""
        try:
            piece = self._read(self._position, num_bytes)
            end = piece.rfind(b"\n") + 1
            if not end and len(piece) >= num_bytes:
                if num_bytes < MAX_LINE_BYTES:
                    return self.next_lines(MAX_LINE_BYTES)
                # No event is this long. The piece is counted as read, its rest is no JSON.
                end = len(piece)
        except OSError:
            return b""
        taken = piece[:end]
        self._position += end
        self._guard = (self._guard + taken)[-GUARD_BYTES:]
        return taken

    def _read(self, position: int, num_bytes: int) -> bytes:
        # Opened anew each time: an open file could not be replaced or moved on Windows.
        with self._path.open("rb") as file:
            file.seek(max(position, 0))
            return file.read(num_bytes)


def spread(first: int, last: int, number: int) -> Iterator[int]:
    """Yield `number` positions evenly between two."""
    for index in range(number):
        yield first + (last - first) * index // number
