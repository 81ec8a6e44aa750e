"""Images and captions that lie in tar shards, on a disk or in an object store.

In: shards with their states. Out: a Source. Members are read by ranges: nothing is unpacked. A
shard that changed after it was indexed is noticed by its own state on a disk, and anywhere by the
header that stands before each member.

A member's path is that of its shard with its name behind it, as if the shard were a folder.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from sdft.dataset.drivers import opened, with_retries
from sdft.dataset.metadata import joined
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.objects import AT_ONCE_BYTES, GONE, HEAD_BYTES, Head, StatedPath
from sdft.dataset.records import WordRules
from sdft.dataset.remembered import NUM_COMPARED
from sdft.dataset.shard_index import ShardIndex
from sdft.dataset.sources import State, mark_of
from sdft.dataset.tar_members import BLOCK_BYTES
from sdft.errors import DataError
from sdft.urls import UrlPath, is_url

GAP_BYTES = 1 << 20
"""Members nearer to each other are read by one request: asking takes longer than so many bytes."""

STREAM_BYTES = 8 << 20
"""So much of a shard in an object store is read at a time while it is indexed."""

Note = Callable[[str], None]


class ShardBytes(Protocol):
    """The bytes of one shard. Small when it is sent to another process."""

    def read(self, start: int, stop: int, note: Note) -> bytes:
        """Raises: OSError."""


@dataclass(frozen=True, slots=True)
class LocalShard:
    """A shard on the disk."""

    path: str
    state: State

    def read(self, start: int, stop: int, note: Note) -> bytes:
        with open(self.path, "rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != self.state:
                raise _changed(self.path)
            file.seek(start)
            return file.read(stop - start)


@dataclass(frozen=True, slots=True)
class RemoteShard:
    """A shard in an object store."""

    url: str

    def read(self, start: int, stop: int, note: Note) -> bytes:
        system, name = opened(self.url)
        return with_retries(
            lambda: bytes(system.cat_file(name, start=start, end=stop)), self.url, note
        )


class Streamed(RawIOBase):
    """A shard as a file that is read from begin to end, in few large parts."""

    def __init__(self, shard: ShardBytes, num_bytes: int, note: Note) -> None:
        self._shard, self._num_bytes, self._note = shard, num_bytes, note
        self._position = self._begin = 0
        self._part = b""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        position = self._position
        stop = self._num_bytes if size < 0 else min(self._num_bytes, position + size)
        if stop <= position:
            return b""
        if not self._begin <= position <= stop <= self._begin + len(self._part):
            end = min(self._num_bytes, max(stop, position + STREAM_BYTES))
            self._begin, self._part = position, self._shard.read(position, end, self._note)
        content = self._part[position - self._begin : stop - self._begin]
        self._position += len(content)
        return content


@dataclass(frozen=True, slots=True)
class Place:
    """Where one member lies."""

    shard: ShardBytes
    start: int
    num_bytes: int
    header_check: int

    def read(self, name: str, most: int | None, note: Note) -> bytes:
        """Return the content, or its first `most` bytes.

        Raises: OSError, also where the shard is not the one that was indexed.
        """
        stop = self.start + min(self.num_bytes, self.num_bytes if most is None else most)
        return self.checked(self.shard.read(self.start - BLOCK_BYTES, stop, note), name, stop)

    def checked(self, found: bytes, name: str, stop: int) -> bytes:
        """Return what stands behind the header in the bytes from there to `stop`."""
        is_same = zlib.crc32(found[:BLOCK_BYTES]) == self.header_check
        if not is_same or len(found) != stop - self.start + BLOCK_BYTES:
            raise _changed(name)
        return found[BLOCK_BYTES:]


def _changed(name: str) -> OSError:
    return OSError(errno.EIO, "its shard changed after it was indexed", name)


class _MemberPath(StatedPath):
    """A Path to a member of a shard."""

    place: Place | None = None
    cache: ObjectCache | None = None
    shards: Shards | None = None

    def __reduce__(self) -> Any:
        if self.object_state is None or self.place is None:
            return type(self), (str(self),)
        return member_path, (str(self), self.object_state, self.place, self.cache)

    def read_bytes(self) -> bytes:
        """Return the content.

        Raises: OSError.
        """
        if self.object_state is None or self.place is None:
            raise FileNotFoundError(errno.ENOENT, "no such member", str(self))
        return read_member(str(self), self.object_state, self.place, self.cache, self.notes.append)


class UrlMemberPath(_MemberPath, UrlPath):
    pass


# Path itself cannot be subclassed before Python 3.12, only the class of this system's paths.
class LocalMemberPath(_MemberPath, type(Path())):  # type: ignore[misc]
    pass


def member_path(text: str, state: State, place: Place, cache: ObjectCache | None) -> _MemberPath:
    path: _MemberPath = (UrlMemberPath if is_url(text) else LocalMemberPath)(text)
    path.object_state, path.place, path.cache, path.notes = state, place, cache, []
    return path


def read_member(
    text: str, state: State, place: Place, cache: ObjectCache | None, note: Note
) -> bytes:
    """Return a member's content; of a shard elsewhere from the cache if it is kept there.

    Raises: OSError.
    """
    content = cache.get(text, state) if cache is not None else None
    if content is None:
        content = place.read(text, None, note)
        if cache is not None:
            cache.put(text, state, content)
    return content


@dataclass(slots=True, eq=False)
class Shard:
    """One shard that is indexed."""

    state: State
    index: ShardIndex
    content: ShardBytes
    cache: ObjectCache | None
    """Where members are kept; none where the shard is on the disk."""

    def place(self, row: int) -> Place:
        return Place(self.content, *self.index.numbers_N3[row].tolist())

    def member_state(self, row: int) -> State:
        return int(self.index.numbers_N3[row, 1]), self.state[1]


@dataclass(slots=True, eq=False)
class Shards:
    """All shards of an index, by the texts of their paths."""

    by_path: dict[str, Shard] = field(default_factory=dict)

    def find(self, text: str) -> tuple[Shard, int] | None:
        """Return the shard and the row of a member's path, or None."""
        lower = text.lower()
        end = lower.find(".tar")
        while end >= 0:
            end += len(".tar")
            shard = self.by_path.get(text[:end])
            if shard is not None:
                row = shard.index.row(text[end + 1 :].replace(os.sep, "/"))
                return None if row is None else (shard, row)
            end = lower.find(".tar", end)
        return None

    def path(self, text: str, state: State) -> Path | None:
        """Return a member's path from its text; None where it is none."""
        found = self.find(text)
        if found is None:
            return None
        shard, row = found
        path = member_path(text, state, shard.place(row), shard.cache)
        path.shards = self
        return cast(Path, path)

    def member(self, text: str) -> Path | None:
        """Return the path of a member by its text alone; None where it is none."""
        found = self.find(text)
        return None if found is None else self.path(text, found[0].member_state(found[1]))


def shards_of(path: Path) -> Shards | None:
    """Return what knows of a member's path; None for any other."""
    return path.shards if isinstance(path, _MemberPath) else None


class ShardFiles:
    """A Source: the members of one subset's shards."""

    def __init__(self, shards: Shards, rules: WordRules) -> None:
        self._shards = shards
        self._rules = rules
        self._heads: dict[str, bytes] = {}
        self._notes: list[str] = []
        self.takes_all = True
        """Whether all that is elsewhere fits into the cache."""

    def states(self, paths: Sequence[str], caption_files: Sequence[str]) -> np.ndarray:
        none = (0, 0)
        rows = []
        for path, words in zip(paths, caption_files, strict=True):
            caption = (self._known(words) or GONE) if words else none
            rows.append((*(self._known(path) or GONE), *caption))
        return np.array(rows, dtype=np.int64).reshape(-1, NUM_COMPARED)

    def state(self, path: str) -> State:
        state = self._known(path)
        if state is None:
            raise FileNotFoundError(errno.ENOENT, "not in the shards", path)
        return state

    def _known(self, path: str) -> State | None:
        found = self._shards.find(path)
        if found is None:
            return None
        shard, row = found
        num_bytes, mark = shard.member_state(row)
        if path.endswith(".json"):
            # What it comes to is what is remembered of it, and that depends on this too.
            mark = mark_of(f"{mark} {self._rules.caption_separator}")
        return num_bytes, mark

    def open(self, path: str) -> tuple[BinaryIO, State]:
        state = self.state(path)
        head = self._heads.pop(path, None)
        if head is None:
            found = self._shards.find(path)
            assert found is not None, "it has a state"
            shard, row = found
            if (shard.cache is not None and shard.cache.holds(path, state)) or (
                state[0] <= HEAD_BYTES
            ):
                return BytesIO(self._content(path)), state
            head = shard.place(row).read(path, HEAD_BYTES, self._notes.append)
        return Head(head, lambda: self._content(path)), state

    def read(self, path: str) -> bytes:
        content = self._content(path)
        return words_of_json(content, self._rules) if path.endswith(".json") else content

    def _content(self, path: str) -> bytes:
        found = self._shards.find(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "not in the shards", path)
        shard, row = found
        state, place = shard.member_state(row), shard.place(row)
        return read_member(path, state, place, shard.cache, self._notes.append)

    def fetch(self, images: Sequence[str], caption_files: Sequence[str]) -> None:
        """Read neighbours by one request; what fails here is read alone when it is needed."""
        wanted = [(path, None if self.takes_all else HEAD_BYTES) for path in images]
        wanted += [(path, None) for path in caption_files]
        members: dict[str, tuple[Shard, Place, int]] = {}
        for path, most in wanted:
            found = self._shards.find(path)
            if found is None or found[0].cache is None:
                continue
            shard, row = found
            place = shard.place(row)
            if not found[0].cache.holds(path, shard.member_state(row)):
                num_bytes = place.num_bytes if most is None else min(most, place.num_bytes)
                members[path] = (shard, place, place.start + num_bytes)
        for group in _neighbours(members):
            self._fetch_group({path: members[path] for path in group})

    def _fetch_group(self, members: dict[str, tuple[Shard, Place, int]]) -> None:
        shard, first, _ = next(iter(members.values()))
        begin = first.start - BLOCK_BYTES
        stop = max(stop for _, _, stop in members.values())
        try:
            found = shard.content.read(begin, stop, self._notes.append)
        except OSError:
            return
        assert shard.cache is not None, "only such members are fetched"
        for path, (_, place, end) in members.items():
            part = found[place.start - BLOCK_BYTES - begin : end - begin]
            try:
                content = place.checked(part, path, end)
            except OSError:
                continue
            if len(content) == place.num_bytes and (self.takes_all or len(content) < HEAD_BYTES):
                shard.cache.put(path, (place.num_bytes, shard.state[1]), content)
            else:
                self._heads[path] = content

    def notes(self) -> list[str]:
        notes, self._notes = self._notes, []
        return notes

    def note(self, text: str) -> None:
        self._notes.append(text)


def _neighbours(members: dict[str, tuple[Shard, Place, int]]) -> Iterator[list[str]]:
    """Give members of one shard that lie near each other, not too many at a time."""
    order = sorted(members, key=lambda path: (id(members[path][0]), members[path][1].start))
    group: list[str] = []
    begin = stop = 0
    for path in order:
        shard, place, end = members[path]
        is_near = bool(group) and members[group[0]][0] is shard
        is_near = is_near and place.start - BLOCK_BYTES - stop <= GAP_BYTES
        if group and (not is_near or end - begin > AT_ONCE_BYTES):
            yield group
            group = []
        if not group:
            begin = place.start - BLOCK_BYTES
        group.append(path)
        stop = end
    if group:
        yield group


def words_of_json(content: bytes, rules: WordRules) -> bytes:
    """Return the caption and tags that a `.json` member holds, as text; empty where it has none.

    Raises: DataError.
    """
    caption, tags = json_words(content)
    return joined(caption, tags, rules).encode("utf-8", "surrogatepass")


def json_words(content: bytes) -> tuple[str, str]:
    """Return the caption and the tags of a `.json` member, empty where it has none.

    Raises: DataError.
    """
    try:
        entry = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(what=f"not JSON ({error})", fix="write it anew") from error
    if not isinstance(entry, dict):
        raise DataError(what="no JSON object", fix=_WANTED)
    texts = []
    for name in ("caption", "tags"):
        text = entry.get(name) or ""
        if not isinstance(text, str):
            raise DataError(what=f"JSON whose {name} is no text", fix=_WANTED)
        texts.append(text)
    return texts[0], texts[1]


_WANTED = 'write {"caption": "...", "tags": "..."}'
