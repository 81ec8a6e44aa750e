"""Reads headers and captions of image files: the index' work in threads.

In: candidates of a subset, with what is remembered of each. Out: Readings, and columns of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq

import numpy as np

from sdft.dataset import headers
from sdft.dataset.candidates import Candidate, Candidates
from sdft.dataset.captions import raw_caption
from sdft.dataset.gathering import Gathered
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.records import Size
from sdft.dataset.remembered import (
    NUM_COMPARED,
    NUMBERS,
    Remembered,
    RememberedTable,
    is_settled,
)
from sdft.dataset.shards import Shards
from sdft.dataset.sources import Source
from sdft.dataset.tables import ItemTable
from sdft.errors import DataError


@dataclass(slots=True)
class Reading:
    """What came of one candidate."""

    candidate: Candidate
    problem: str = ""
    """Why it cannot be used; then the rest has no meaning."""
    size: Size = (0, 0)
    file_bytes: int = 0
    mtime_ns: int = 0
    caption: str = ""
    """Empty where it has none."""
    unread_lines: int = 0
    new: Remembered | None = None
    """What is worth remembering and was not known."""


@dataclass(slots=True)
class PartRead:
    """What came of some candidates: most are as they were remembered, the others were read."""

    part: Candidates
    known: RememberedTable
    readings: dict[int, Reading]
    """Of the candidates that are not as they were remembered, by their numbers in the part."""


class Columns:
    """What was read, as it comes, column by column."""

    def __init__(self, objects: ObjectCache | None = None, shards: Shards | None = None) -> None:
        self.keys: list[str] = []
        self._objects = objects
        self._shards = shards
        self._paths: list[str] = []
        self._captions: list[str] = []
        self._numbers: list[np.ndarray] = []

    def add(self, read: PartRead, subset: Gathered) -> AddedPart:
        """Add what is usable, and return what was added."""
        part, numbers_N8 = read.part, read.known.numbers_N8
        captions = list(read.known.captions if part.captions is None else part.captions)
        if read.readings:
            numbers_N8 = numbers_N8.copy()
            for row, reading in read.readings.items():
                numbers_N8[row, _READ_COLUMNS] = (
                    *reading.size,
                    reading.file_bytes,
                    reading.mtime_ns,
                    reading.unread_lines,
                )
                captions[row] = reading.caption
        keys, paths = part.keys, part.paths
        broken = {row for row, reading in read.readings.items() if reading.problem}
        if broken:
            used = [row for row in range(len(part)) if row not in broken]
            numbers_N8 = numbers_N8[used]
            keys, paths, captions = ([one[row] for row in used] for one in (keys, paths, captions))
        self._numbers.append(_numbers_of_items(numbers_N8, subset))
        self.keys += keys
        self._paths += paths
        instead = subset.spec.class_tokens
        self._captions += [one or instead for one in captions] if instead else captions
        return AddedPart(keys=keys, captions=captions, unread_lines_N=numbers_N8[:, _UNREAD])

    def table(self) -> ItemTable:
        """Return all of them."""
        none = np.empty((0, 7), dtype=np.int64)
        numbers_N7 = np.concatenate([none, *self._numbers])
        return ItemTable(
            keys=self.keys,
            paths=self._paths,
            captions=self._captions,
            sizes_N2=np.ascontiguousarray(numbers_N7[:, :2]),
            places_N2=np.ascontiguousarray(numbers_N7[:, 2:4]),
            repeats_N=np.ascontiguousarray(numbers_N7[:, 4]),
            file_bytes_N=np.ascontiguousarray(numbers_N7[:, 5]),
            mtimes_ns_N=np.ascontiguousarray(numbers_N7[:, 6]),
            objects=self._objects,
            shards=self._shards if self._shards and self._shards.by_path else None,
        )


@dataclass(slots=True)
class AddedPart:
    """Some usable images, in columns."""

    keys: list[str]
    captions: list[str]
    """As read, before `class_tokens` stand in for what is missing."""
    unread_lines_N: np.ndarray


_SIZE = [NUMBERS.index("width"), NUMBERS.index("height")]
_STATE = [NUMBERS.index("file_bytes"), NUMBERS.index("mtime_ns")]
_UNREAD = NUMBERS.index("unread_lines")
_ALL_LINES = NUMBERS.index("all_lines")
_READ_COLUMNS = [*_SIZE, *_STATE, _UNREAD]


def _numbers_of_items(numbers_N8: np.ndarray, subset: Gathered) -> np.ndarray:
    """Return size, dataset, subset, repeats, bytes and time of each. Shape: [N, 7] int64."""
    items_N7 = np.empty((len(numbers_N8), 7), dtype=np.int64)
    items_N7[:, :2] = numbers_N8[:, _SIZE]
    items_N7[:, 2:5] = (subset.dataset, subset.subset, subset.spec.num_repeats)
    items_N7[:, 5:] = numbers_N8[:, _STATE]
    return items_N7


def as_remembered(part: Candidates, known: RememberedTable, *, all_lines: bool) -> np.ndarray:
    """Return whether each image and its caption file are as they were remembered.

    Asks the disk for size and time of every known file. Shape: [N] bool.
    """
    same_N = known.known_N.copy()
    if not same_N.any():
        return same_N
    names = part.caption_names
    if names != known.caption_files:
        same_N &= np.fromiter(map(eq, names, known.caption_files), bool, len(part))
    has_caption_N = np.fromiter(map(bool, names), bool, len(part))
    same_N &= ~has_caption_N | (known.numbers_N8[:, _ALL_LINES] == all_lines)
    rows = np.flatnonzero(same_N)
    paths, caption_files = part.paths, part.caption_files
    if len(rows) < len(part):
        paths = [paths[row] for row in rows.tolist()]
        caption_files = [caption_files[row] for row in rows.tolist()]
    states = part.source.states(paths, caption_files)
    same_N[rows] = (states == known.numbers_N8[rows, :NUM_COMPARED]).all(1)
    return same_N


def with_given_sizes(
    part: Candidates, known: RememberedTable
) -> tuple[RememberedTable, np.ndarray]:
    """Return what is known of images whose sizes their metadata gives, and of which it is enough.

    Their files are asked for their state and not opened; what is remembered of them yields.
    Shapes: [N] bool, second.
    """
    assert part.sizes_N2 is not None, "the metadata gives sizes"
    states_N4 = part.source.states(part.paths, part.caption_files)
    is_given_N = (part.sizes_N2 > 0).all(1) & (states_N4[:, 0] >= 0)
    # Larger ones are looked at: whatever their metadata says, they may be readable.
    is_given_N &= part.sizes_N2.prod(1) <= headers.MAX_PIXELS
    numbers_N8 = known.numbers_N8.copy()
    numbers_N8[is_given_N] = 0
    numbers_N8[is_given_N, :NUM_COMPARED] = states_N4[is_given_N]
    numbers_N8[is_given_N, _SIZE[0] : _SIZE[1] + 1] = part.sizes_N2[is_given_N]
    files = known.caption_files
    table = RememberedTable(
        known_N=known.known_N | is_given_N,
        numbers_N8=numbers_N8,
        caption_files=[
            "" if given else name for given, name in zip(is_given_N.tolist(), files, strict=True)
        ],
        captions=known.captions,
    )
    same_N = table.known_N & (states_N4 == numbers_N8[:, :NUM_COMPARED]).all(1)
    same_N &= np.fromiter((not name for name in table.caption_files), bool, len(part))
    return table, same_N


def read_rows(
    part: Candidates, known: RememberedTable, rows: Sequence[int], *, all_lines: bool
) -> dict[int, Reading]:
    """Return what came of some candidates, by their numbers in the part.

    Whatever is wrong with one becomes a reason in words.
    """
    caption_files = (part.caption_files[row] for row in rows)
    part.source.fetch([part.paths[row] for row in rows], [name for name in caption_files if name])
    return {row: _read(part.row(row), known.row(row), part.source, all_lines) for row in rows}


def compared(
    part: Candidates, known: RememberedTable, *, all_lines: bool
) -> tuple[RememberedTable, np.ndarray]:
    """Return what is known of a part's images, and of which it is enough. Shapes: [N] bool."""
    if part.sizes_N2 is not None:
        return with_given_sizes(part, known)
    return known, as_remembered(part, known, all_lines=all_lines)


def read_part(part: Candidates, known: RememberedTable, *, all_lines: bool) -> PartRead:
    """Return what came of all candidates of a part."""
    known, same_N = compared(part, known, all_lines=all_lines)
    rows = np.flatnonzero(~same_N).tolist()
    return PartRead(part, known, read_rows(part, known, rows, all_lines=all_lines))


def _read(
    candidate: Candidate, known: Remembered | None, source: Source, all_lines: bool
) -> Reading:
    try:
        if known is None or source.state(candidate.path) != (known.file_bytes, known.mtime_ns):
            known, entry = None, _look_at(candidate.path, source)
        else:
            entry = known
        entry = _with_caption(candidate, entry, known, source, all_lines)
    except DataError as error:
        return Reading(candidate, problem=error.problems[0].what)
    except OSError as error:
        return Reading(candidate, problem=f"cannot be read ({error.strerror or error})")
    is_new = entry is not known and is_settled(max(entry.mtime_ns, entry.caption_mtime_ns))
    return Reading(
        candidate,
        size=(entry.width, entry.height),
        file_bytes=entry.file_bytes,
        mtime_ns=entry.mtime_ns,
        caption=entry.caption if candidate.caption is None else candidate.caption,
        unread_lines=entry.unread_lines,
        new=entry if is_new else None,
    )


def _look_at(path: str, source: Source) -> Remembered:
    """Return the facts of an image file, without a caption.

    Raises: DataError, OSError.
    """
    file, (file_bytes, mtime_ns) = source.open(path)
    with file:
        width, height = headers.read(file).upright
    return Remembered(
        file_bytes=file_bytes,
        mtime_ns=mtime_ns,
        width=width,
        height=height,
        caption_file=None,
        caption_bytes=0,
        caption_mtime_ns=0,
        caption="",
        unread_lines=0,
        all_lines=False,
    )


def _with_caption(
    candidate: Candidate,
    entry: Remembered,
    known: Remembered | None,
    source: Source,
    all_lines: bool,
) -> Remembered:
    """Return the entry with the caption as it is now; the very entry where it has it.

    Raises: DataError, OSError.
    """
    if candidate.caption_file is None:
        if entry.caption_file is None:
            return entry
        return entry._replace(
            caption_file=None, caption_bytes=0, caption_mtime_ns=0, caption="", unread_lines=0
        )
    name = os.path.basename(candidate.caption_file)
    try:
        if (
            known is not None
            and known.caption_file == name
            and known.all_lines == all_lines
            and source.state(candidate.caption_file)
            == (known.caption_bytes, known.caption_mtime_ns)
        ):
            return entry
        caption_bytes, caption_mtime_ns = source.state(candidate.caption_file)
        content = source.read(candidate.caption_file)
        caption, unread_lines = raw_caption(content, all_lines=all_lines)
    except DataError as error:
        problem = error.problems[0]
        raise DataError(f"its caption file {name} is {problem.what}; {problem.fix}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"its caption file {name} cannot be read ({reason})") from error
    return entry._replace(
        caption_file=name,
        caption_bytes=caption_bytes,
        caption_mtime_ns=caption_mtime_ns,
        caption=caption,
        unread_lines=unread_lines,
        all_lines=all_lines,
    )
