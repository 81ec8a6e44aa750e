"""Reads images and captions that lie in an object store: s3, gs, az, http, memory.

In: a prefix. Out: a Source. One listing says what there is and in which state (bytes, and a number
made of the ETag), so nothing is asked for object by object; contents are read once, through an
ObjectCache.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sdft.dataset.drivers import MARKS, entries, opened, read_many, state_of, with_retries
from sdft.dataset.listing import Folder, Listing, is_image
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.remembered import NUM_COMPARED
from sdft.dataset.sources import State
from sdft.files import stays_within
from sdft.units import format_bytes
from sdft.urls import UrlPath, is_url

HEAD_BYTES = 1 << 16
"""Holds the header of nearly every picture, its EXIF block and small preview included."""

UNKNOWN_BYTES = 4 << 20
"""Reckoned for an object whose listing gives no size: a large photo."""

AT_ONCE_BYTES = 64 << 20
"""So much is asked for at a time; what comes lies in memory for a moment."""

GONE = (-1, -1)
"""The state of what is not there."""


class StatedPath:
    """What Paths have in common whose state is known and that no disk is asked for."""

    object_state: State | None = None
    notes: list[str]

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return bytes and, as the time, the number that stands for the ETag. Asks nobody."""
        if self.object_state is None:
            raise FileNotFoundError(errno.ENOENT, "not in the listing", str(self))
        num_bytes, mark = self.object_state
        return os.stat_result((0o100444, 0, 0, 0, 0, 0, num_bytes, 0, 0, 0), {"st_mtime_ns": mark})

    def is_file(self) -> bool:
        return self.object_state is not None


class ObjectPath(StatedPath, UrlPath):
    """A Path to an object whose state is known, which reads through a cache."""

    cache: ObjectCache | None = None

    @classmethod
    def of(cls, url: str, state: State, cache: ObjectCache) -> ObjectPath:
        path = cls(url)
        path.object_state, path.cache, path.notes = state, cache, []
        return path

    def __reduce__(self) -> Any:
        if self.object_state is None:
            return UrlPath, (str(self),)
        return ObjectPath.of, (str(self), self.object_state, self.cache)

    def read_bytes(self) -> bytes:
        """Return the content, from the cache or the store.

        Raises: OSError.
        """
        if self.object_state is None or self.cache is None:
            raise FileNotFoundError(errno.ENOENT, "not in the listing", str(self))
        return read_object(str(self), self.object_state, self.cache, self.notes.append)


def notes_of(path: Path) -> tuple[str, ...]:
    """Return what should be said of reading a path; nothing of a local one."""
    return tuple(path.notes) if isinstance(path, StatedPath) else ()


def item_path(text: str, state: State, cache: ObjectCache | None) -> Path:
    """Return an image's path from its text."""
    if cache is not None and is_url(text):
        return ObjectPath.of(text, state, cache)
    return Path(text)


class ObjectFiles:
    """A Source: the objects below one prefix, as they were listed."""

    def __init__(self, root: UrlPath, cache: ObjectCache) -> None:
        self._root = root
        self._cache = cache
        self._states: dict[str, State] = {}
        self._heads: dict[str, bytes] = {}
        self._takes_all = True
        self._notes: list[str] = []

    def listed(self, *, recursive: bool) -> Listing:
        """List the prefix: one request for each thousand objects or so.

        Raises: OSError where it cannot be listed; EnvironmentFault where a package is missing.
        """
        system, prefix = opened(str(self._root))
        found = with_retries(
            lambda: entries(system, prefix, recursive=recursive), str(self._root), self._note
        )
        root, listing = str(self._root), Listing(root=self._root, folders=[])
        prefix = prefix.rstrip("/") + "/"
        names: dict[str, list[str]] = {"": []}
        unclear = 0
        for name, facts in found.items():
            key = name.removeprefix(prefix)
            parts = key.rstrip("/").split("/")
            if facts.get("type") == "directory" or key.endswith("/") or not key:
                if not recursive and key.strip("/"):
                    listing.subfolders_left.append(self._root / parts[0])
            elif not stays_within(key):
                unclear += is_image(key)
            elif any(part.startswith(".") for part in parts):
                listing.num_hidden += is_image(parts[-1])
            else:
                self._states[f"{root}/{key}"] = state_of(f"{root}/{key}", facts)
                names.setdefault(posixpath.dirname(key), []).append(parts[-1])
        for folder in sorted(names):
            files = sorted(names[folder])
            listing.folders.append(
                Folder(
                    path=self._root / folder,
                    prefix=f"{folder}/" if folder else "",
                    images=[file for file in files if is_image(file)],
                    others=[file for file in files if not is_image(file)],
                )
            )
        self._weigh(
            unclear, [facts for facts in found.values() if facts.get("type") != "directory"]
        )
        return listing

    def _weigh(self, unclear: int, found: Sequence[dict[str, Any]]) -> None:
        total_bytes = sum(num_bytes for num_bytes, _ in self._states.values())
        self._takes_all = total_bytes <= self._cache.max_bytes
        if not self._takes_all:
            self._note(
                f"{format_bytes(total_bytes)} of objects are more than the "
                f"{format_bytes(self._cache.max_bytes)} that are kept on this machine: some are "
                "read more than once (object_cache_gb)"
            )
        if unclear:
            self._note(f"{unclear} images left out: an empty part, . or .. or \\ in their names")
        if found and not any(mark in facts for facts in found for mark in MARKS):
            self._note(
                "this server's listing gives no ETag and no time: a changed image is not noticed; "
                f"remove {self._cache.folder} to read all anew"
            )

    def states(self, paths: Sequence[str], caption_files: Sequence[str]) -> np.ndarray:
        none = (0, 0)
        rows = []
        for path, caption_file in zip(paths, caption_files, strict=True):
            image = self._states.get(path, GONE)
            words = self._states.get(caption_file, GONE) if caption_file else none
            rows.append((*image, *words))
        return np.array(rows, dtype=np.int64).reshape(-1, NUM_COMPARED)

    def state(self, path: str) -> State:
        try:
            return self._states[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "not in the listing", path) from None

    def open(self, path: str) -> tuple[BinaryIO, State]:
        state = self.state(path)
        head = self._heads.pop(path, None)
        if head is None:
            return BytesIO(self.read(path)), state
        return Head(head, lambda: self.read(path)), state

    def read(self, path: str) -> bytes:
        return read_object(path, self.state(path), self._cache, self._note)

    def fetch(self, images: Sequence[str], caption_files: Sequence[str]) -> None:
        """Read many at once; what fails here is tried again one by one when it is needed."""
        whole = [*images, *caption_files] if self._takes_all else list(caption_files)
        for part in self._portions(whole, None):
            for path, content in read_many(part, None):
                _keep(path, self.state(path), content, self._cache, self._note)
        if not self._takes_all:
            for part in self._portions(images, HEAD_BYTES):
                self._heads |= dict(read_many(part, HEAD_BYTES))

    def _portions(self, paths: Sequence[str], most: int | None) -> Iterator[list[str]]:
        """Give those that are not kept, so many at a time as fit in memory."""
        part: list[str] = []
        num_bytes = 0
        for path in paths:
            state = self._states.get(path)
            # What is not in the listing is told when it is opened.
            if state is None or self._cache.holds(path, state):
                continue
            size = state[0] or UNKNOWN_BYTES
            size = min(size, most or size)
            if part and num_bytes + size > AT_ONCE_BYTES:
                yield part
                part, num_bytes = [], 0
            part.append(path)
            num_bytes += size
        if part:
            yield part

    def notes(self) -> list[str]:
        notes, self._notes = self._notes, []
        return notes

    def _note(self, text: str) -> None:
        self._notes.append(text)


class Head(BytesIO):
    """A file of which only the first bytes are there; the rest is read if it is asked for."""

    def __init__(self, head: bytes, whole: Callable[[], bytes]) -> None:
        super().__init__(head)
        self._end = len(head)
        self._whole: Callable[[], bytes] | None = whole if len(head) == HEAD_BYTES else None

    def read(self, size: int | None = -1, /) -> bytes:
        position = self.tell()
        if self._whole is not None and (size is None or size < 0 or position + size > self._end):
            content, self._whole = self._whole(), None
            self.seek(0)
            self.write(content)
            self.seek(position)
        return super().read(size)


def object_path(url: Path, cache: ObjectCache) -> ObjectPath:
    """Return one object's path, with its state: one request.

    Raises: OSError where it is not there; EnvironmentFault where a package is missing.
    """
    system, name = opened(str(url))
    notes: list[str] = []
    facts = with_retries(lambda: system.info(name), str(url), notes.append)
    path = ObjectPath.of(str(url), state_of(str(url), facts), cache)
    path.notes += notes
    return path


def read_object(url: str, state: State, cache: ObjectCache, note: Callable[[str], None]) -> bytes:
    """Return an object's content, from the cache or else from the store.

    Raises: OSError.
    """
    content = cache.get(url, state)
    if content is None:
        system, name = opened(url)
        content = with_retries(lambda: bytes(system.cat_file(name)), url, note)
        _keep(url, state, content, cache, note)
    return content


def _keep(
    url: str, state: State, content: bytes, cache: ObjectCache, note: Callable[[str], None]
) -> None:
    if state[0] and len(content) != state[0]:
        # Kept under its own state by the next start, which lists anew.
        note(f"{url} changed after it was listed; it is used as it is now")
        return
    cache.put(url, state, content)
