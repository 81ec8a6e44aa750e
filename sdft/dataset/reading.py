"""Reads headers and captions of image files: the index' work in threads.

In: candidates of a subset, with what is remembered of each. Out: Readings, and columns of them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq
from pathlib import Path

import numpy as np

from sdft.dataset import headers
from sdft.dataset.candidates import Candidate, Candidates
from sdft.dataset.captions import raw_caption
from sdft.dataset.gathering import Gathered
from sdft.dataset.records import Size
from sdft.dataset.remembered import (
    NUM_COMPARED,
    NUMBERS,
    Remembered,
    RememberedTable,
    is_same_file,
    is_settled,
)
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

    def __init__(self) -> None:
        self.keys: list[str] = []
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
    same_N[rows] = (_states(paths, caption_files) == known.numbers_N8[rows, :NUM_COMPARED]).all(1)
    return same_N


def _states(paths: Sequence[str], caption_files: Sequence[str]) -> np.ndarray:
    """Return size and time of each image and of its caption file, 0 where it has none.

    An image that cannot be asked for has sizes below 0. Shape: [N, 4] int64.
    """
    states_N4 = np.zeros((len(paths), NUM_COMPARED), dtype=np.int64)
    states_N4[:, :2] = _sizes_and_times(paths)
    rows = [row for row, caption_file in enumerate(caption_files) if caption_file]
    states_N4[rows, 2:] = _sizes_and_times([caption_files[row] for row in rows])
    return states_N4


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


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def read_rows(
    part: Candidates, known: RememberedTable, rows: Sequence[int], *, all_lines: bool
) -> dict[int, Reading]:
    """Return what came of some candidates, by their numbers in the part.

    Whatever is wrong with one becomes a reason in words.
    """
    return {row: _read(part.row(row), known.row(row), all_lines) for row in rows}


def read_part(part: Candidates, known: RememberedTable, *, all_lines: bool) -> PartRead:
    """Return what came of all candidates of a part."""
    rows = np.flatnonzero(~as_remembered(part, known, all_lines=all_lines)).tolist()
    return PartRead(part, known, read_rows(part, known, rows, all_lines=all_lines))


def _read(candidate: Candidate, known: Remembered | None, all_lines: bool) -> Reading:
    try:
        if known is None or not is_same_file(candidate.path, known.file_bytes, known.mtime_ns):
            known, entry = None, _look_at(candidate.path)
        else:
            entry = known
        entry = _with_caption(candidate, entry, known, all_lines)
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


def _look_at(path: str) -> Remembered:
    """Return the facts of an image file, without a caption.

    Raises: DataError, OSError.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DataError("not a file but a device or a pipe")
        width, height = headers.read(file).upright
    return Remembered(
        file_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        width=width,
        height=height,
        caption_file=None,
        caption_bytes=0,
        caption_mtime_ns=0,
        caption="",
        unread_lines=0,
        all_lines=False,
    )


def _open_without_waiting(path: str, flags: int) -> int:
    # A named pipe would wait for a writer for ever; Windows has neither the pipe nor the flag.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _with_caption(
    candidate: Candidate, entry: Remembered, known: Remembered | None, all_lines: bool
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
            and is_same_file(candidate.caption_file, known.caption_bytes, known.caption_mtime_ns)
        ):
            return entry
        status = os.stat(candidate.caption_file)
        content = Path(candidate.caption_file).read_bytes()
        caption, unread_lines = raw_caption(content, all_lines=all_lines)
    except DataError as error:
        problem = error.problems[0]
        raise DataError(f"its caption file {name} is {problem.what}; {problem.fix}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"its caption file {name} cannot be read ({reason})") from error
    return entry._replace(
        caption_file=name,
        caption_bytes=status.st_size,
        caption_mtime_ns=status.st_mtime_ns,
        caption=caption,
        unread_lines=unread_lines,
        all_lines=all_lines,
    )
