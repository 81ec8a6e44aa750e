"""Where a subset's files lie, as the index asks for them.

A Source lists, tells states and reads; whether behind it is a disk or an object store is its own
matter. Here: the local disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from sdft.dataset.remembered import NUM_COMPARED
from sdft.errors import DataError

State = tuple[int, int]
"""Bytes, and a number that changes when the content does: on a disk the time in ns."""


def mark_of(text: str) -> int:
    """Return a number for a text by which a change is seen, such as an ETag.

    It stands where the time in ns of a local file does, so it is one of a time long ago: then
    nothing waits for the file to settle.
    """
    digest = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return 10**18 + digest % (6 * 10**17)


class Source(Protocol):
    """Files of one subset. Used by many threads."""

    def states(self, paths: Sequence[str], caption_files: Sequence[str]) -> np.ndarray:
        """Return the state of each image and of its caption file, 0 where it has none.

        An image that is not there has sizes below 0. Shape: [N, 4] int64.
        """

    def state(self, path: str) -> State:
        """Return a file's state now.

        Raises: OSError where it is not there.
        """

    def open(self, path: str) -> tuple[BinaryIO, State]:
        """Open an image to read its header.

        Raises: OSError, DataError.
        """

    def read(self, path: str) -> bytes:
        """Return a caption file's content.

        Raises: OSError.
        """

    def fetch(self, images: Sequence[str], caption_files: Sequence[str]) -> None:
        """Hear which files will be read next."""

    def notes(self) -> list[str]:
        """Return what should be said of reading, and forget it."""


class LocalFiles:
    """The disk."""

    def states(self, paths: Sequence[str], caption_files: Sequence[str]) -> np.ndarray:
        states_N4 = np.zeros((len(paths), NUM_COMPARED), dtype=np.int64)
        states_N4[:, :2] = _sizes_and_times(paths)
        rows = [row for row, caption_file in enumerate(caption_files) if caption_file]
        states_N4[rows, 2:] = _sizes_and_times([caption_files[row] for row in rows])
        return states_N4

    def state(self, path: str) -> State:
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns

    def open(self, path: str) -> tuple[BinaryIO, State]:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError("not a file but a device or a pipe")
        except (DataError, OSError):
            file.close()
            raise
        return file, (status.st_size, status.st_mtime_ns)

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def fetch(self, images: Sequence[str], caption_files: Sequence[str]) -> None:
        pass

    def notes(self) -> list[str]:
        return []


LOCAL = LocalFiles()


def _sizes_and_times(paths: Sequence[str]) -> np.ndarray:
    """Return size and time of each file, -1 for one that cannot be asked for. Shape: [N, 2]."""
    # One flat pass: of all that a second start does, this takes longest.
    try:
        numbers = [
            number
            for status in map(os.stat, paths)
            for number in (status.st_size, status.st_mtime_ns)
        ]
    except OSError:
        numbers = [number for path in paths for number in _size_and_time(path)]
    return np.array(numbers, dtype=np.int64).reshape(-1, 2)


def _size_and_time(path: str) -> State:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _open_without_waiting(path: str, flags: int) -> int:
    # A named pipe would wait for a writer for ever; Windows has neither the pipe nor the flag.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
