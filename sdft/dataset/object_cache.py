"""Keeps what was read of object stores on this machine's disk, within a size.

In: an object's name and state. Out: its content, where it was kept. Files are named by what they
hold (name, bytes, ETag), so a changed object is another file; the longest unused ones go first.
Several processes share a folder.
"""

from __future__ import annotations

import contextlib
import os
import threading
from hashlib import blake2b
from pathlib import Path

from sdft.dataset.sources import State
from sdft.files import make_folder, remove, replace, whole_file

KEPT_SHARE = 0.9
"""Of the limit, when files have to go: so that the next object does not make some go again."""

COUNTS_AGAIN = 50
"""The folder is looked through whenever a 50th of the limit was written: others write it too."""


class ObjectCache:
    """A folder with a limit. Small when it is sent to another process."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._begin()

    def __getstate__(self) -> tuple[Path, int]:
        return self.folder, self.max_bytes

    def __setstate__(self, state: tuple[Path, int]) -> None:
        self.folder, self.max_bytes = state
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._uncounted_bytes: int | None = None

    def holds(self, url: str, state: State) -> bool:
        """Tell whether an object is kept."""
        return self._file(url, state).exists()

    def get(self, url: str, state: State) -> bytes | None:
        """Return an object's content, or None where it is not kept."""
        path = self._file(url, state)
        try:
            content = path.read_bytes()
            # The time of a file here is that of its last use.
            os.utime(path)
        except FileNotFoundError:
            return None
        # Cut off by a loss of power; the next `put` replaces it.
        return content if not state[0] or len(content) == state[0] else None

    def put(self, url: str, state: State, content: bytes) -> None:
        """Keep an object, and let go of others where it gets too much.

        Raises: EnvironmentFault where the folder cannot be written.
        """
        if len(content) > self.max_bytes:
            return
        path = self._file(url, state)
        make_folder(path.parent)
        with whole_file(path) as part:
            part.write_bytes(content)
        self._count(len(content))

    def _count(self, num_bytes: int) -> None:
        with self._lock:
            if self._uncounted_bytes is not None:
                self._uncounted_bytes += num_bytes
                if self._uncounted_bytes * COUNTS_AGAIN < self.max_bytes:
                    return
            self._uncounted_bytes = 0
            self._make_room()

    def part(self, url: str, state: State, start: int, num_bytes: int) -> bytes | None:
        """Return some bytes of an object that is kept whole, or None where it is not."""
        path = self._file(url, state)
        try:
            with path.open("rb") as file:
                file.seek(start)
                content = file.read(num_bytes)
            os.utime(path)
        except FileNotFoundError:
            return None
        return content if len(content) == num_bytes else None

    def adopt(self, url: str, state: State, path: Path) -> None:
        """Keep a file of this machine's disk as what an object holds; it is moved."""
        if state[0] > self.max_bytes:
            remove(path)
            return
        kept = self._file(url, state)
        make_folder(kept.parent)
        replace(path, kept)
        self._count(state[0])

    def _file(self, url: str, state: State) -> Path:
        name = blake2b(f"{url}\0{state[0]}\0{state[1]}".encode(), digest_size=20).hexdigest()
        return self.folder / name[:2] / name

    def _make_room(self) -> None:
        files = []
        for folder in self.folder.iterdir():
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(folder) as names,
            ):
                for entry in names:
                    # Another process lets go of files too.
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        files.append((status.st_mtime_ns, status.st_size, entry.path))
        total_bytes = sum(num_bytes for _, num_bytes, _ in files)
        if total_bytes <= self.max_bytes * (1 - 1 / COUNTS_AGAIN):
            return
        for _, num_bytes, path in sorted(files):
            if total_bytes <= KEPT_SHARE * self.max_bytes:
                return
            remove(Path(path))
            total_bytes -= num_bytes
