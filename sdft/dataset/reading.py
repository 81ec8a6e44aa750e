"""Reads headers and captions of image files: the index' work in threads.

In: candidates of a subset, with what is remembered of each. Out: Readings, and columns of them.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdft.dataset import headers
from sdft.dataset.captions import raw_caption
from sdft.dataset.gathering import Candidate, Gathered
from sdft.dataset.records import Size
from sdft.dataset.remembered import Remembered, is_same_file, is_settled
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


class Columns:
    """Readings as they come, column by column."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._paths: list[str] = []
        self._captions: list[str] = []
        self._numbers = array("q")

    def add(self, reading: Reading, subset: Gathered) -> None:
        """Add a usable reading."""
        self.keys.append(reading.candidate.key)
        self._paths.append(reading.candidate.path)
        self._captions.append(reading.caption or subset.spec.class_tokens or "")
        self._numbers.extend(
            (
                *reading.size,
                subset.dataset,
                subset.subset,
                subset.spec.num_repeats,
                reading.file_bytes,
                reading.mtime_ns,
            )
        )

    def table(self) -> ItemTable:
        """Return all of them."""
        numbers_N7 = np.array(self._numbers, dtype=np.int64).reshape(-1, 7)
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


def read_part(
    subset: Gathered, candidates: Sequence[Candidate], known: Sequence[Remembered | None]
) -> list[Reading]:
    """Return what came of each candidate. Whatever is wrong with one becomes a reason in words."""
    all_lines = subset.spec.words.enable_wildcard
    return [
        _read(candidate, entry, all_lines)
        for candidate, entry in zip(candidates, known, strict=True)
    ]


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
